"""The description: what an instance says of itself, put together for one announcement or one probe.

It reads what other threads replace as a whole or only add to. It takes no snapshot, whose sessions would
die on the reading thread where the loader has dropped it meanwhile, but ``serving``.

1. Outside the group nothing is answered, so the revision is 0 whatever is loaded.
2. Unclean ends are told for the rollout that moves traffic, counted on from what ``status`` found of this
   name. Until the log was read no rollout is known, and what was found is passed on as it is: an
   instance that ends again before that must not lose the count.
"""

import threading
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib.metadata import version as version_of

from adapters.onnx_model import numeric_class, runtime_limits
from adapters.settings import Settings
from consumer.answering import Serving
from consumer.control import Follower, Heard
from consumer.measures import Identity
from consumer.memory import resident_bytes
from consumer.models import Loader
from consumer.service import Service
from consumer.shadow import ShadowScorer
from consumer.status import Reporter
from consumer.tallies import Meter, Observed, TallyName
from consumer.vitals import Vitals
from schemas.fleet import CrashCount, InstanceStatus, Phase, Runtime, Tally

THREADS = frozenset({"follower", "loader", "reporter", "shadow", "watchdog"})
"""What must run beside the answering loop once the instance stands (``consumer.threads``)."""


class Description:
    """Called for each announcement, always from one thread; ``vitals`` may be asked for from any."""

    def __init__(
        self,
        settings: Settings,
        model: str,
        instance: str,
        service: Service,
        loader: Loader,
        follower: Follower,
        shadows: ShadowScorer,
        reporter: Reporter,
    ) -> None:
        self._interval = settings.consumer.status_interval_ms / 1_000
        self._model = model
        self._instance = instance
        self._service = service
        self._loader = loader
        self._follower = follower
        self._shadows = shadows
        self._reporter = reporter
        self._started_at = datetime.now(UTC)
        limits = runtime_limits()
        self._runtime = Runtime(
            onnxruntime=limits.onnxruntime,
            numeric_class=numeric_class(),
            modelwire=version_of("modelwire"),
            opsets=dict(limits.opsets),
            ir_version=limits.ir_version,
        )
        self._meter: Meter[TallyName | None] = Meter(self._interval, time.monotonic())

    def __call__(self) -> InstanceStatus:
        """The status of the moment."""
        answering, now = self._service.answering, datetime.now(UTC)
        answers, serving = answering.transactions, answering.serving
        heard, report = self._follower.heard, self._loader.report
        counts = {**answers.counts, **self._shadows.counts()}
        answers_of: dict[TallyName | None, int] = {
            name: each.answered + each.rejected for name, each in counts.items()
        }
        answered = answers.answered + answers.rejected
        rates = self._meter.measure({None: answered, **answers_of}, time.monotonic())
        phase = answering.phase
        return InstanceStatus(
            instance=self._instance,
            model=self._model,
            phase=phase,
            detail=answering.detail,
            read_revision=heard.deployment.revision,
            revision=0 if serving is None or phase is Phase.WAITING else serving.revision,
            champion=None if serving is None else serving.champion,
            prepared=report.prepared,
            refused=report.refused,
            runtime=self._runtime,
            partitions=answering.holdings.partitions,
            answered=answers.answered,
            rejected=answers.rejected,
            rate=rates[None],
            horizon_days_left=_days_left(serving, now.date()),
            interval_seconds=self._interval,
            started_at=self._started_at,
            at=now,
            lag=self._service.lag,
            tallies=tuple(
                Tally(*name, each.answered, each.rejected, rates[name], each.shed, each.failed)
                for name, each in counts.items()
            ),
            passed=report.passed,
            crashes=crashes_of(heard, self._reporter.crashes_before),
        )

    @property
    def identity(self) -> Identity:
        """What does not change."""
        return Identity(self._model, self._instance, self._runtime)

    def vitals(self) -> Vitals:
        """The vitals of the moment, for health, metrics and summaries. Changes nothing."""
        service, loader = self._service, self._loader
        answering, meters = service.answering, service.meters
        answers, serving = answering.transactions, answering.serving
        phase, detail = answering.phase, answering.detail
        running = {thread.name for thread in threading.enumerate()}
        return Vitals(
            phase=phase,
            detail=detail,
            joined=answering.joined,
            missing_threads=tuple(sorted(THREADS - running)),
            partitions=len(answering.holdings.partitions),
            read_revision=self._follower.heard.deployment.revision,
            revision=0 if serving is None or phase is Phase.WAITING else serving.revision,
            # Copies of what the loop adds to: one step of the interpreter, in which it adds nothing.
            forecasts=dict(answers.forecasts),
            rejections=dict(answers.reasons),
            aborted=answers.aborted,
            lag=service.lag,
            batch_rows=meters.batch_rows.read(),
            score_seconds=meters.score_seconds.read(),
            swap_seconds=_together(meters.swaps, loader.stage_seconds),
            refusals=dict(loader.refused_total),
            loaded=loader.loaded,
            resident_bytes=resident_bytes(),
            horizon_days_left=_days_left(serving, datetime.now(UTC).date()),
        )


def crashes_of(heard: Heard, before: tuple[CrashCount, ...]) -> tuple[CrashCount, ...]:
    """What to tell of unclean ends, where ``before`` is what was found at the start."""
    if not heard.caught_up:
        return before
    rollout = heard.deployment.rollout
    if rollout is None:
        return ()
    counts = {each.rollout: each.count for each in before}
    return (CrashCount(rollout.revision, counts.get(rollout.revision, 0)),)


def _days_left(serving: Serving | None, today: date) -> int | None:
    last_day = None if serving is None else serving.last_day
    return None if last_day is None else (last_day - today).days


def _together(
    of_the_loop: Mapping[str, Observed], of_the_loader: Mapping[str, tuple[int, float]]
) -> dict[str, Observed]:
    """The stages of swaps that the loop measured and those that the loader did."""
    return {stage: Observed(*measured) for stage, measured in of_the_loader.items()} | dict(
        of_the_loop
    )
