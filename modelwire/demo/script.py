"""The story of the demo, one step after the other, each a command that a person could type.

Train ``plain`` and ``full``; release the first, with a blue-green start; two consumers; a steady
stream of requests from the held-out days. Then, under that load: release the second with a
blue-green start, undo it, start it again. Each swap is measured from the time of the event that
changes the champion (taken by the writer, just before it commits) to the arrival, at a reader of
committed answers, of the first answer at that revision or a later one on the *last* request
partition. Every instance owns partitions, so by then every instance serves the revision and has
committed with it.

The next swap begins when PHASE_ANSWERS more requests are answered. At the end the stream stops, all
answers are awaited, and the consumers stop, so that the check also sees what a stop leaves.
"""

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adapters.control_log import LogReader
from adapters.fleet_topic import read_fleet
from adapters.settings import Settings
from modelwire.demo.commands import Commands, command_line
from modelwire.demo.follower import Answers, Follower
from modelwire.demo.view import Moment, View
from modelwire.replay import Replay, bundle_to_imitate, endless, read_holdout, utc_now
from schemas.errors import TimedOut
from schemas.events import ControlEvent, ModelRestored, RolloutPromoted
from schemas.fleet import Phase

SLOTS = 2
RATE = 1_000.0
"""Requests a second."""

REQUESTS = 24_000
"""How many there are at least."""

PHASE_ANSWERS = 5_000
"""Answers between two swaps."""

WAIT_SECONDS = 60.0
"""How long any one thing is awaited: a consumer to be ready, a swap to be everywhere."""

DIGITS = 12
"""How much of a bundle's digest the commands name."""

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Swap:
    """A change of the champion under load: the command, its revision, seconds until all served it."""

    command: str
    revision: int
    seconds: float


@dataclass(frozen=True)
class Played:
    """What the demo itself has seen. ``wape`` maps a version to its WAPE on the held-out rows."""

    swaps: tuple[Swap, ...]
    wape: dict[int, float | None]


class Script:
    """Plays the demo for one new model, on a running stack."""

    def __init__(
        self, settings: Settings, model: str, dataset: Path, commands: Commands, view: View
    ) -> None:
        self._settings = settings
        self._model = model
        self._dataset = dataset
        self._commands = commands
        self._view = view

    def play(self) -> Played:
        """The whole story. The consumers still run when it returns."""
        plain, full = (self._train(preset) for preset in ("plain", "full"))
        self._run("topics", "create", self._model)
        self._run("release", "publish", plain, "--start", "blue-green")
        self._start_consumers()
        log = LogReader(self._settings, self._model)
        log.read_to_end()
        digest, manifest = bundle_to_imitate(self._settings, log.ledger.deployment)
        rows = read_holdout(self._settings, digest, manifest)
        answers = Answers(
            actuals={row.inputs: row.actual for row in rows},
            output=manifest.contract.outputs[0].name,
        )
        replay = Replay(
            self._settings, self._model, endless(rows, seed=0), run_id=uuid.uuid4().hex[:12]
        )
        follower = Follower(self._settings, self._model, answers)
        stream = _Stream(replay, follower, self._commands, self._view)
        self._view.say(f"{RATE:,.0f} requests a second from {len(rows):,} held-out rows")
        try:
            with stream:
                swaps = self._swap_under_load(stream, log, full)
                stream.watch("requests", lambda: replay.acknowledged >= REQUESTS)
            stream.watch("the last answers", lambda: answers.answered >= replay.acknowledged)
        finally:
            follower.close()
            log.close()
        wape = {version: score.wape for version, score in sorted(answers.scores.items())}
        return Played(swaps, wape)

    def _train(self, preset: str) -> str:
        arguments = ("train", "--dataset", str(self._dataset), "--preset", preset, "-o", "json")
        report = json.loads(self._run(*arguments))
        wape = report["holdout"]["metrics"]["model"]["wape"]
        self._view.say(f"trained {preset} in {report['seconds']:.1f} s, held-out WAPE {wape:.3f}")
        return str(report["digest"]).removeprefix("sha256:")[:DIGITS]

    def _run(self, *arguments: str, meanwhile: Callable[[], None] | None = None) -> str:
        self._view.say(f"$ {command_line(arguments)}")
        return self._commands.run(*arguments, meanwhile=meanwhile or _pause)

    def _start_consumers(self) -> None:
        for slot in range(SLOTS):
            arguments = ("consume", "--model", self._model, "--slot", str(slot))
            self._view.say(f"$ {command_line(arguments)} &")
            self._commands.start(f"{self._model}-slot-{slot}", *arguments)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            self._commands.check()
            fleet = read_fleet(self._settings, self._model)
            ready = [each for each in fleet if each.alive and each.status.phase is Phase.READY]
            if len(ready) == SLOTS:
                self._view.say(f"{SLOTS} consumers are ready")
                return
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{len(ready)} of {SLOTS} consumers were ready after {WAIT_SECONDS:.0f} s",
                    hint="see " + ", ".join(str(each.log) for each in self._commands.background),
                )
            _pause()

    def _swap_under_load(self, stream: "_Stream", log: LogReader, bundle: str) -> tuple[Swap, ...]:
        swaps = []
        for arguments in (
            ("release", "publish", bundle, "--start", "blue-green"),
            ("rollout", "undo", self._model),
            ("rollout", "start", f"{self._model}:2", "--strategy", "blue-green"),
        ):
            stream.watch_more(PHASE_ANSWERS)
            partitions = stream.answers.partitions()
            self._run(*arguments, meanwhile=stream.look)
            swaps.append(self._measure(stream, log, command_line(arguments), partitions))
        stream.watch_more(PHASE_ANSWERS)
        return tuple(swaps)

    def _measure(
        self, stream: "_Stream", log: LogReader, command: str, partitions: frozenset[int]
    ) -> Swap:
        event = _change_of_champion(log)
        answers = stream.answers
        stream.watch(
            f"revision {event.revision} on every partition",
            lambda: answers.served_since(event.revision, partitions) is not None,
        )
        served = answers.served_since(event.revision, partitions)
        assert served is not None
        swap = Swap(command, event.revision, served - event.time.timestamp())
        self._view.say(
            f"version {log.ledger.deployment.champion} answers on all {len(partitions)} partitions, "
            f"{swap.seconds:.2f} s after revision {event.revision} was appended"
        )
        return swap


class _Stream:
    """The stream of requests, sent by a thread for the time of a ``with`` block, and its answers."""

    def __init__(self, replay: Replay, follower: Follower, commands: Commands, view: View) -> None:
        self.answers = follower.answers
        self._replay = replay
        self._follower = follower
        self._commands = commands
        self._view = view
        self._thread = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None

    def __enter__(self) -> None:
        self._sending = self._thread.submit(self._replay.run, RATE, None, utc_now)

    def __exit__(self, *exception: object) -> None:
        self._replay.stop()
        self._thread.shutdown(wait=True)
        assert self._sending is not None
        if exception == (None, None, None):
            self._sending.result()

    def look(self) -> None:
        """Take in the newest answers and show them. Raises where the stream or a consumer died."""
        self._follower.poll(POLL_SECONDS)
        self._commands.check()
        if self._sending is not None and self._sending.done():
            self._sending.result()
        now = time.time()
        self._view.show(
            Moment(
                acknowledged=self._replay.acknowledged,
                answered=self.answers.answered,
                rate=self.answers.rate(now),
                revision=self.answers.revision,
                answering=self.answers.answering,
                versions=dict(self.answers.versions),
                instances=self.answers.instances(now),
            )
        )

    def watch(self, what: str, is_over: Callable[[], bool]) -> None:
        """Look on until ``is_over``. Raises TimedOut."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_over():
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"waited {WAIT_SECONDS:.0f} s for {what}; {self.answers.answered:,} of "
                    f"{self._replay.acknowledged:,} requests are answered",
                    hint="see " + ", ".join(str(each.log) for each in self._commands.background),
                )
            self.look()

    def watch_more(self, count: int) -> None:
        """Look on until ``count`` more requests are answered."""
        goal = self.answers.answered + count
        self.watch(f"{count:,} answers", lambda: self.answers.answered >= goal)


def _change_of_champion(log: LogReader) -> ControlEvent:
    """The next event that makes another version the champion."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        for recorded in log.poll(POLL_SECONDS):
            if isinstance(recorded.data, RolloutPromoted | ModelRestored):
                return recorded.event
    raise TimedOut(f"the control log named no new champion within {WAIT_SECONDS:.0f} s")


def _pause() -> None:
    time.sleep(POLL_SECONDS)
