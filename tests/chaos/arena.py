"""Where a chaos run takes place: servers of its own, since they are killed, and a model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adapters.settings import load_settings
from modelwire.localstack.stack import Stack
from tests.chaos.consumers import kill_left_over
from tests.fleet import Harness, environment_of
from tests.s3_faults import S3Faults


@contextmanager
def arena(folder: Path, model: str) -> Iterator[tuple[Harness, S3Faults]]:
    """A model on a stack in ``folder``, and the proxy between its consumers and their store."""
    state_dir = folder / "stack"
    with ExitStack() as endings:
        endings.callback(Stack.down, state_dir)  # before the start, which may be broken off
        info = Stack.up(state_dir, quiet=True)
        faults = S3Faults(info.s3_endpoint)
        endings.callback(faults.close)
        settings = load_settings(state_dir=state_dir)
        place = folder / "consumers"
        place.mkdir()
        endings.callback(kill_left_over, place)
        harness = Harness(settings, environment_of(settings), model, place)
        endings.callback(harness.close)
        yield harness, faults
