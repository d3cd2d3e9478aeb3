"""The description: what an instance says of itself, put together for one announcement.

It runs on the reporter's thread and reads what other threads replace as a whole. It takes no snapshot,
whose sessions would die on this thread where the loader has dropped it meanwhile, but ``serving``.

1. Outside the group nothing is answered, so the revision is 0 whatever is loaded.
2. Unclean ends are told for the rollout that moves traffic, counted on from what ``status`` found of this
   name. Until the log was read no rollout is known, and what was found is passed on as it is: an
   instance that ends again before that must not lose the count.
"""

import time
from datetime import UTC, datetime
from importlib.metadata import version as version_of

from adapters.onnx_model import numeric_class, runtime_limits
from adapters.settings import Settings
from consumer.control import Follower, Heard
from consumer.models import Loader
from consumer.service import Service
from consumer.shadow import ShadowScorer
from consumer.status import Reporter
from consumer.tallies import Meter, TallyName
from schemas.fleet import CrashCount, InstanceStatus, Phase, Runtime, Tally


class Description:
    """Called for each announcement, always from one thread."""

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
        last_day = None if serving is None else serving.last_day
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
            horizon_days_left=None if last_day is None else (last_day - now.date()).days,
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


def crashes_of(heard: Heard, before: tuple[CrashCount, ...]) -> tuple[CrashCount, ...]:
    """What to tell of unclean ends, where ``before`` is what was found at the start."""
    if not heard.caught_up:
        return before
    rollout = heard.deployment.rollout
    if rollout is None:
        return ()
    counts = {each.rollout: each.count for each in before}
    return (CrashCount(rollout.revision, counts.get(rollout.revision, 0)),)
