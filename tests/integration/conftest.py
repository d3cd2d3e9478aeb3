"""What the tests of consumers share: a model of their own on the shared servers."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.settings import load_settings
from tests.fleet import Harness, environment_of

if TYPE_CHECKING:
    from tests.conftest import RunningStack


@pytest.fixture
def harness(stack: "RunningStack", model: str, tmp_path: Path) -> Iterator[Harness]:
    """A model with topics and an empty store of its own."""
    settings = load_settings(
        state_dir=stack.info.state_dir, store_url=(tmp_path / "store").as_uri()
    )
    running = Harness(settings, environment_of(settings), model, tmp_path)
    yield running
    running.close()
