"""A real run whose answers are kept: four versions, a canary, an undo, rejections; and how it is audited.

Who tampers with its stores uses ``restoring``.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

from adapters.answer_files import AnswerStore, read_records
from adapters.control_log import read_log
from adapters.fleet_topic import live_instances
from adapters.object_store import open_store
from deployment.commands import Shift, Start, Strategy
from modelwire.cli import modelwire
from schemas.answer_file import FileName, Kind, Record
from schemas.events import Recorded
from tests.bundles import store_bundle
from tests.fleet import Harness, environment_of, wait_for
from tests.keeping import keep_answers

SENDINGS = 6
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
AGAIN = (BAD[1], BAD[2])


class AuditedRun:
    """What a run left: its stores, its log, and its answer files."""

    def __init__(self, harness: Harness, names: list[FileName]) -> None:
        self.harness = harness
        self.names = names
        self.store = Path(harness.settings.store_url.removeprefix("file://"))
        self.answers = AnswerStore(open_store(harness.settings.audit_url), harness.model)

    def verify(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What `audit verify` says for programs."""
        model = self.harness.model
        said = self.audit("verify", "--model", model, "-o", "json", *arguments, code=code)
        return json.loads(said)  # type: ignore[no-any-return]

    def audit(self, *arguments: str, code: int = 0) -> str:
        """What a command of `audit` prints."""
        ran = CliRunner().invoke(
            modelwire, ["audit", *arguments], env=environment_of(self.harness.settings)
        )
        assert ran.exit_code == code, ran.output
        return ran.stdout

    def edit(self, name: FileName, change: Callable[[pa.Table], pa.Table]) -> None:
        """Rewrite a file by hand, with the footer that it had."""
        path = self.path(name)
        table = pq.read_table(path)
        path.chmod(0o644)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)

    def answered(self) -> int:
        """How many requests were answered."""
        return SENDINGS * GOOD + len(BAD) + 2 * len(AGAIN)

    def path(self, name: FileName) -> Path:
        """A file that a tester may edit."""
        return self.store / name.key

    def events(self) -> list[Recorded]:
        """What the control log holds."""
        return read_log(self.harness.settings, self.harness.model).events

    def records(self, name: FileName) -> list[Record]:
        """The records of a file."""
        return read_records(self.answers.read(name), name)

    def a_rejection(self) -> tuple[FileName, dict[str, Any]]:
        """A rejection that some version gave."""
        for name in self.names:
            if name.kind is Kind.REJECTIONS:
                for row in pq.read_table(self.path(name)).to_pylist():
                    if row["version"]:
                        return name, row
        raise AssertionError("no rejection of any version")

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

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """After the block the stores are as they were."""
        saved = self.store.parent / "saved"
        shutil.copytree(self.store, saved)
        try:
            yield
        finally:
            shutil.rmtree(self.store)
            saved.rename(self.store)


def audited_run(harness: Harness) -> AuditedRun:
    """Carry the run out and keep its answers."""
    answer_all(harness)
    return AuditedRun(harness, keep_answers(harness.settings, harness.model))


def answer_all(harness: Harness) -> None:
    """Two champions, a canary of the third version, an undo, a fourth; good and bad requests to each."""
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
        harness.send_raw(list(AGAIN), key=b"key-5")
        harness.rejections(len(BAD) + len(AGAIN))
    harness.wait_for_revision(harness.undo())
    send()
    harness.wait_for_revision(harness.release(store_bundle(store, model, 4.0)))
    send()


def _prepared(harness: Harness, version: int) -> Any:
    fleet = live_instances(harness.fleet())
    return fleet if fleet and all(version in each.prepared for each in fleet) else None
