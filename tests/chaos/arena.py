"""Where a chaos run takes place: servers of its own, since they are killed, and a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.settings import load_settings
from modelwire.localstack.stack import Stack
from tests.fleet import Harness, environment_of
from tests.s3_faults import S3Faults


@contextmanager
def arena(folder: Path, model: str) -> Iterator[tuple[Harness, S3Faults]]:
    """A model on a stack in ``folder``, and the proxy between its consumers and their store."""
    state_dir = folder / "stack"
    info = Stack.up(state_dir, quiet=True)
    faults = S3Faults(info.s3_endpoint)
    try:
        settings = load_settings(state_dir=state_dir)
        place = folder / "consumers"
        place.mkdir()
        harness = Harness(settings, environment_of(settings), model, place)
        yield harness, faults
        harness.close()
    finally:
        faults.close()
        Stack.down(state_dir)
