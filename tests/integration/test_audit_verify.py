"""Answers of a real run derived again: all of them, and each thing that was tampered with by its name."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from adapters.answer_files import AnswerStore
from adapters.fleet_topic import live_instances
from adapters.object_store import open_store
from adapters.onnx_model import runtime_name
from deployment.commands import Shift, Start, Strategy
from schemas.answer_file import FileName, Kind
from tests.bundles import store_bundle
from tests.fleet import Harness, wait_for
from tests.keeping import keep_answers

pytestmark = pytest.mark.stack

GOOD = 480
BAD: tuple[bytes | None, ...] = (
    b"not json",
    b'{"request_id":"bad-1","inputs":{"item":"a","units":"many","date":"2011-12-09"}}',
    b'{"request_id":"bad-2","inputs":{"item":"a","units":1.0,"date":"1999-12-09"}}',
    b'{"request_id":"bad-3","inputs":{"item":"a","units":1.0,"date":"2011-12-09"},"requested_at":"x"}',
    b'{"request_id":"bad-4","request_id":"bad-4","inputs":{}}',
    b"",
    None,
    b"x" * 70_000,
)


@pytest.fixture(scope="module")
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A run of four versions with a canary, an undo and rejections, whose answers are kept."""
    from adapters.settings import load_settings
    from tests.fleet import environment_of

    stack = request.getfixturevalue("stack")
    folder = tmp_path_factory.mktemp("kept")
    settings = load_settings(state_dir=stack.info.state_dir, store_url=(folder / "store").as_uri())
    harness = Harness(settings, environment_of(settings), "m-audit-verify", folder)
    try:
        _answer_all(harness)
        names = keep_answers(settings, harness.model)
    finally:
        harness.close()
    return Run(harness, names)


class Run:
    """What a run left: its stores, its log, and its answer files."""

    def __init__(self, harness: Harness, names: list[FileName]) -> None:
        self.harness = harness
        self.names = names
        self.store = Path(harness.settings.store_url.removeprefix("file://"))
        self.answers = AnswerStore(open_store(harness.settings.audit_url), harness.model)

    def verify(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What `audit verify` says for programs."""
        model = self.harness.model
        said = self.harness.run(
            "audit", "verify", "--model", model, "-o", "json", *arguments, code=code
        )
        return json.loads(said)  # type: ignore[no-any-return]

    def path(self, name: FileName) -> Path:
        """A file that a tester may edit."""
        return self.store / name.key

    def an_answer(
        self, kind: Kind = Kind.FORECASTS, version: int = 2
    ) -> tuple[FileName, dict[str, Any]]:
        """A file that another follows, and a row of it."""
        for name, after in zip(self.names, self.names[1:], strict=False):
            if name.kind is kind and (after.kind, after.partition) == (kind, name.partition):
                for row in pq.read_table(self.path(name)).to_pylist():
                    if row["version"] == version:
                        return name, row
        raise AssertionError(f"no {kind} of version {version} in a file that another follows")


def _answer_all(harness: Harness) -> None:
    store, model = harness.store, harness.model
    harness.release(store_bundle(store, model, 1.0))
    harness.start()
    harness.wait_until_ready()
    sent = 0

    def send(count: int = GOOD) -> None:
        nonlocal sent
        harness.send(count, item="ab"[sent % 2])
        sent += count
        harness.forecasts(sent)

    send()
    harness.send_raw(list(BAD))
    harness.rejections(len(BAD))
    harness.wait_for_revision(harness.release(store_bundle(store, model, 2.0)))
    send()
    harness.release(store_bundle(store, model, 3.0), start=False)
    rollout = harness.command(Start(3, Strategy.CANARY, "salt", min_ready=0))[-1].event.revision
    for weight in (2_500, 5_000):
        fleet = wait_for("version 3", lambda: _prepared(harness, 3), 60)
        revision = harness.command(Shift(rollout, weight, None, fleet))[-1].event.revision
        harness.wait_for_revision(revision)
        send()
        harness.send_raw([BAD[1], BAD[2]], key=b"key-5")
        harness.rejections(len(BAD) + 2)
    harness.wait_for_revision(harness.undo())
    send()
    harness.wait_for_revision(harness.release(store_bundle(store, model, 4.0)))
    send()


def _prepared(harness: Harness, version: int) -> Any:
    fleet = live_instances(harness.fleet())
    return fleet if fleet and all(version in each.prepared for each in fleet) else None


def test_every_answer_of_a_run_comes_out_again_bit_for_bit(kept: Run) -> None:
    """Forecasts of four versions, a canary, an undo; and rejections, also of bytes that were not kept."""
    report = kept.verify("--sample", "100000")
    answered = 6 * GOOD + len(BAD) + 4
    assert report["checked"] == answered
    assert report["outcomes"] == {
        "identical": answered,
        "within-tolerance": 0,
        "differs": 0,
        "not-derivable": 0,
    }
    assert report["runtimes"] == {runtime_name(): answered}
    assert report["answers"] == []
    assert report["revisions"] >= 5
