"""What the how-to pages say to type works, command by command, with a consumer that answers."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adapters.control_log import read_log
from adapters.object_store import open_store
from adapters.settings import Settings, load_settings
from deployment.commands import Release, Strategy
from deployment.state import Deployment
from modelwire.localstack.stack import Stack
from publisher.commands import give
from tests.bundles import store_bundle
from tests.fleet import wait_for
from tests.shell import ROOT, Shell, commands_in

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

MODEL = "sales"
PAGES = ROOT / "docs" / "how-to"


class Reader(Shell):
    """A reader with a stack of their own, on which a model called sales is served."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        Stack.up(folder / ".modelwire", quiet=True)
        self.type(["topics", "create", MODEL])

    @property
    def settings(self) -> Settings:
        return load_settings()

    @property
    def deployment(self) -> Deployment:
        return read_log(self.settings, MODEL).deployment

    def release(self, versions: int, *, champions: int) -> None:
        """Release that many versions; the first ones become champion, one after the other."""
        settings = self.settings
        store = open_store(settings.store_url, settings.s3_settings)
        for number in range(1, versions + 1):
            digest = store_bundle(store, MODEL, float(number))
            strategy = Strategy.BLUE_GREEN if number <= champions else None
            give(settings, MODEL, Release(digest, strategy, f"salt-{number}"))

    def follow(self, page: str) -> None:
        """Type the whole page; what runs on is started in a terminal of its own."""
        self.write_files_of(PAGES / page)
        with ExitStack() as terminals:
            for arguments in commands_in(PAGES / page):
                if "--run" in arguments:
                    terminals.enter_context(self.until_its_end(arguments))
                    wait_for("the pause", self._is_paused, 60)
                elif "-w" in arguments:
                    self.watch(arguments, expected=f"{MODEL}:")
                elif arguments[:2] == ["rollout", "start"] and "--plan" not in arguments:
                    terminals.close()  # the reader lets the plan come to its end first
                    self.type(arguments)
                else:
                    self.type(arguments)

    def _is_paused(self) -> bool:
        rollout = self.deployment.rollout
        return rollout is not None and rollout.paused


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """In an empty folder, with the servers running there."""
    try:
        yield Reader(tmp_path)
    finally:
        Stack.down(tmp_path / ".modelwire")
        shutil.rmtree(tmp_path / ".modelwire", ignore_errors=True)


def test_release_a_model(reader: Reader) -> None:
    """A trained bundle becomes a version, champion, and is revoked."""
    reader.release(1, champions=1)
    with reader.terminal(["consume", "--model", MODEL]):
        reader.follow("release-a-model.md")
    assert reader.deployment.champion == 1


def test_run_a_canary(reader: Reader) -> None:
    """The plan ends in the promotion of version 2; version 3 is moved by hand and given up."""
    reader.release(3, champions=1)
    with reader.terminal(["consume", "--model", MODEL]):
        reader.follow("run-a-canary.md")
    assert reader.deployment.champion == 2
    assert reader.deployment.rollout is None


def test_undo(reader: Reader) -> None:
    """One step back, and then to a version by its name."""
    reader.release(3, champions=3)
    with reader.terminal(["consume", "--model", MODEL]):
        reader.follow("undo.md")
    assert reader.deployment.champion == 1


def test_shadow_a_candidate(reader: Reader) -> None:
    """Started, widened, ended; the champion stays."""
    reader.release(2, champions=1)
    with reader.terminal(["consume", "--model", MODEL]):
        reader.follow("shadow-a-candidate.md")
    assert reader.deployment.champion == 1
    assert not reader.deployment.shadows
