"""The story of the demo, one step after the other, each a command that a person could type.

Train ``plain`` and ``full``; release the first, with a blue-green start; two consumers; a steady
stream of requests from the held-out days. Then, all under that load:

1. Release the second version: every instance takes it through admission, and nothing else changes.
2. Shadow it: for SHADOW_ANSWERS answers it scores the requests that the champion answers.
3. Roll it out by a canary, whose plan a controller carries out in the background, up to its promotion.
4. Undo that, and roll it out again at once, blue-green.

Each swap, and each of the canary's shifts, is measured from the time of its event (taken by the writer,
just before it commits) to the arrival, at a reader of committed answers, of the first answer at that
revision or a later one on the *last* request partition. Every instance owns partitions, so by then every
instance serves the revision and has committed with it.

Between two steps PHASE_ANSWERS more requests are answered. At the end the stream stops, all answers are
awaited, and the consumers stop, so that the check also sees what a stop leaves.
"""

import json
import shlex
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adapters.control_log import LogReader
from adapters.fleet_topic import read_fleet
from adapters.settings import Settings
from modelwire.demo.answers import Answers
from modelwire.demo.commands import Background, Commands, command_line
from modelwire.demo.figures import Played, Shadowed, Step, Swap, shadow_words, step_words
from modelwire.demo.follower import Follower
from modelwire.demo.stream import POLL_SECONDS, RATE, WAIT_SECONDS, Stream
from modelwire.demo.view import View
from modelwire.replay import Replay, bundle_to_imitate, endless, read_holdout
from schemas.errors import ModelwireError, TimedOut
from schemas.events import ModelRestored, RolloutPromoted, RolloutShifted
from schemas.fleet import InstanceStatus, Phase
from schemas.forecast import Variant

SLOTS = 2

CANDIDATE = 2
"""The version that ``full`` becomes: the model is new, and ``plain`` was released first."""

REQUESTS = 20_000
"""How many there are at least."""

PHASE_ANSWERS = 1_000
"""Answers between two steps."""

SHADOW_ANSWERS = 3_000
"""Requests that both the champion and its shadow have answered before the story goes on."""

PATIENCE = 3
"""A shadow gives way to the champion: after this many times as many answers of the champion alone the
story goes on with what the shadow has scored."""

PLAN = """\
# Two shares for two seconds each, then everything; then the candidate is promoted.
steps = [
    {weight = 10, hold = "2s"},
    {weight = 50, hold = "2s"},
    {weight = 100},
]
"""
PLAN_STEPS = 3

DIGITS = 12
"""How much of a bundle's digest the commands name."""


class Script:
    """Plays the demo for one new model, on a running stack."""

    def __init__(
        self,
        settings: Settings,
        model: str,
        dataset: Path,
        folder: Path,
        commands: Commands,
        view: View,
    ) -> None:
        """``folder`` is where the plan is written."""
        self._settings = settings
        self._model = model
        self._candidate = f"{model}:{CANDIDATE}"
        self._dataset = dataset
        self._plan = folder / "canary.toml"
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
        stream = Stream(replay, follower, log, self._commands, self._view)
        self._view.say(f"{RATE:,.0f} requests a second from {len(rows):,} held-out rows")
        try:
            with stream:
                played = self._play_under_load(stream, full)
                stream.watch("requests", lambda: replay.acknowledged >= REQUESTS)
            stream.watch("the last answers", lambda: answers.answered >= replay.acknowledged)
        finally:
            follower.close()
            log.close()
        wape = {version: score.wape for version, score in sorted(answers.scores.items())}
        return replace(played, wape=wape)

    def _train(self, preset: str) -> str:
        arguments = ("train", "--dataset", str(self._dataset), "--preset", preset, "-o", "json")
        report = json.loads(self._run(*arguments))
        wape = report["holdout"]["metrics"]["model"]["wape"]
        self._view.say(f"trained {preset} in {report['seconds']:.1f} s, held-out WAPE {wape:.3f}")
        return str(report["digest"]).removeprefix("sha256:")[:DIGITS]

    def _run(self, *arguments: str, meanwhile: Callable[[], None] | None = None) -> str:
        self._view.say(f"$ {command_line(arguments)}")
        return self._commands.run(*arguments, meanwhile=meanwhile or _pause)

    def _start(self, name: str, *arguments: str, ends: bool = False) -> Background:
        self._view.say(f"$ {command_line(arguments)} &")
        return self._commands.start(name, *arguments, ends=ends)

    def _start_consumers(self) -> None:
        for slot in range(SLOTS):
            name = f"{self._model}-slot-{slot}"
            self._start(name, "consume", "--model", self._model, "--slot", str(slot))
        self._await_fleet(
            "consumers were ready", lambda status: status.phase is Phase.READY, self._check
        )
        self._view.say(f"{SLOTS} consumers are ready")

    def _check(self) -> None:
        self._commands.check()
        _pause()

    def _await_fleet(
        self,
        what: str,
        is_there: Callable[[InstanceStatus], bool],
        meanwhile: Callable[[], None],
    ) -> None:
        """Until all slots are alive and ``is_there``. Raises TimedOut."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            meanwhile()
            live = self._live()
            there = sum(is_there(status) for status in live)
            if there == SLOTS:
                return
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{there} of {SLOTS} {what} after {WAIT_SECONDS:.0f} s",
                    hint="see " + ", ".join(str(each.log) for each in self._commands.background),
                )

    def _live(self) -> list[InstanceStatus]:
        return [each.status for each in read_fleet(self._settings, self._model) if each.alive]

    # --- under load

    def _play_under_load(self, stream: Stream, full: str) -> Played:
        stream.watch_more(PHASE_ANSWERS)
        self._release(stream, full)
        shadow = self._shadow(stream)
        canary, promotion = self._canary(stream)
        stream.watch_more(PHASE_ANSWERS)
        undo = self._swap(stream, "undo", "rollout", "undo", self._model)
        stream.watch_more(PHASE_ANSWERS)
        start = ("rollout", "start", self._candidate, "--strategy", "blue-green")
        again = self._swap(stream, "blue-green", *start)
        stream.watch_more(PHASE_ANSWERS)
        return Played((promotion, undo, again), {}, shadow, canary)

    def _release(self, stream: Stream, full: str) -> None:
        """Released, and through admission everywhere; the champion goes on alone."""
        self._run("release", "publish", full, meanwhile=stream.look)

        def has_it(status: InstanceStatus) -> bool:
            for refused in status.refused:
                if refused.version == CANDIDATE:
                    raise ModelwireError(
                        f"{status.instance} does not admit version {CANDIDATE}: {refused.rung}: "
                        f"{refused.reason}"
                    )
            return CANDIDATE in status.prepared

        self._await_fleet(f"consumers had version {CANDIDATE} prepared", has_it, stream.look)
        self._view.say(
            f"version {CANDIDATE} passed admission on {SLOTS} of {SLOTS} consumers: loaded, "
            "checked and warm, without traffic"
        )

    def _shadow(self, stream: Stream) -> Shadowed:
        start = ("rollout", "start", self._candidate, "--strategy", "shadow", "--share", "100%")
        self._run(*start, meanwhile=stream.look)
        stream.next_event("the start of the shadow", RolloutShifted)
        compared = stream.answers.comparison
        at_most = stream.answers.answered + PATIENCE * SHADOW_ANSWERS
        stream.watch(
            "the shadow's answers",
            lambda: compared.compared >= SHADOW_ANSWERS or stream.answers.answered >= at_most,
        )
        tallies = [
            tally
            for status in self._live()
            for tally in status.tallies
            if tally.variant == Variant.SHADOW
        ]
        shadow = Shadowed(
            CANDIDATE,
            scored=compared.scored,
            shed=sum(tally.shed for tally in tallies),
            failed=sum(tally.failed for tally in tallies),
            compared=compared.compared,
            wape=compared.shadow.wape,
            champion_wape=compared.champion.wape,
        )
        self._view.say(f"shadow: {shadow_words(shadow)}")
        return shadow

    def _canary(self, stream: Stream) -> tuple[tuple[Step, ...], Swap]:
        self._plan.write_text(PLAN, encoding="utf-8")
        self._view.say(f"$ cat {shlex.quote(_typed(self._plan))}")
        for line in PLAN.splitlines():
            self._view.say(f"    {line}")
        partitions = stream.answers.partitions()
        start = ("rollout", "start", self._candidate, "--plan", _typed(self._plan), "--run")
        controller = self._start(f"{self._model}-rollout", *start, ends=True)
        shifts = [self._shift(stream, partitions) for _ in range(PLAN_STEPS)]
        swap = self._measure(stream, "promotion", command_line(start), partitions)
        self._commands.wait(controller, stream.look)
        steps = tuple(
            Step.of(weight, revision, stream.answers.splits[revision], seconds)
            for weight, revision, seconds in shifts
        )
        for step in steps:
            self._view.say(f"canary: {step_words(step, CANDIDATE)}")
        return steps, swap

    def _shift(self, stream: Stream, partitions: frozenset[int]) -> tuple[int, int, float]:
        """The weight and the revision of the canary's next shift, and seconds until it is everywhere."""
        shifted = stream.next_event("the canary's next shift", RolloutShifted)
        assert isinstance(shifted.data, RolloutShifted)
        weight, revision = shifted.data.weight, shifted.event.revision
        seconds = stream.seconds_until_everywhere(shifted, partitions)
        self._view.say(
            f"canary: {weight / 100:g}% of the keys for version {CANDIDATE} on all "
            f"{len(partitions)} partitions, {seconds:.2f} s after revision {revision} was appended"
        )
        return weight, revision, seconds

    def _swap(self, stream: Stream, way: str, *arguments: str) -> Swap:
        partitions = stream.answers.partitions()
        self._run(*arguments, meanwhile=stream.look)
        return self._measure(stream, way, command_line(arguments), partitions)

    def _measure(self, stream: Stream, way: str, command: str, partitions: frozenset[int]) -> Swap:
        """The next event that makes another version the champion, until it is everywhere."""
        changed = stream.next_event("a new champion", RolloutPromoted, ModelRestored)
        assert isinstance(changed.data, RolloutPromoted | ModelRestored)
        seconds = stream.seconds_until_everywhere(changed, partitions)
        swap = Swap(way, command, changed.event.revision, seconds)
        self._view.say(
            f"{way}: version {changed.data.version} answers on all {len(partitions)} partitions, "
            f"{seconds:.2f} s after revision {swap.revision} was appended"
        )
        return swap


def _typed(path: Path) -> str:
    """The path as a person in this folder would type it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _pause() -> None:
    time.sleep(POLL_SECONDS)
