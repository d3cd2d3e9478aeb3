"""One instance of the consumer as a process: its start, its run until a signal, its stop.

Start: the topics are looked for (a broker that is away is waited for, for a while), the log is read,
older processes of this name are fenced, and the group's start is settled just before the first join.
Stop: on SIGTERM or SIGINT what is open is committed, the stream is closed, a tombstone says goodbye,
and the exit code is 0. A static member keeps its place in the group until its session times out, so
that a supervisor's restart costs no rebalance; a dynamic member leaves at once. Anything that cannot
go on raises, and the process ends with that error's exit code; a supervisor starts the slot again.
"""

import gc
import signal
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import structlog

from adapters.bundle_cache import open_bundles
from adapters.bundles import Bundles
from adapters.fleet_topic import Announcer
from adapters.group_offsets import Start, settle_start
from adapters.kafka import NotPermitted, require_topics, topic_names
from adapters.onnx_model import runtime_name
from adapters.request_stream import RequestStream
from adapters.settings import Membership, Settings
from adapters.stream_config import group_of
from consumer.aborts import Aborts
from consumer.admission import Limits
from consumer.control import Follower
from consumer.description import Description
from consumer.health import Health, Place, Pulse
from consumer.isolation import Isolation
from consumer.journal import Journal
from consumer.memory import MIB, budget_of
from consumer.models import Loader
from consumer.probe import Limits as ProbeLimits
from consumer.probe import SandboxProbe, Stopped
from consumer.service import Service
from consumer.shadow import ShadowScorer
from consumer.status import Reporter
from schemas.errors import Conflict, ModelwireError, NotFound, UsageProblem

BROKER_SECONDS = 30.0
"""How long a broker that does not answer is waited for at the start."""

DOUBT_SECONDS = 8.0
"""How long a call is repeated after the process was asked to stop."""

SWITCH_SECONDS = 0.0005
"""How long another thread may keep the interpreter from the loop, which lets it go in each call to the
broker. Beside a shadow that always scores, a turn of the loop took 20 ms with Python's own 5 ms, and 10
with this; neither scored fewer rows."""

log = structlog.get_logger()


class Stop:
    """Whether the process was asked to stop, and for how long."""

    def __init__(self) -> None:
        self.asked_at: float | None = None

    def listen(self) -> None:
        """Take SIGTERM and SIGINT for the wish to stop."""
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    @property
    def asked(self) -> bool:
        """True once a signal came."""
        return self.asked_at is not None

    def has_not_come(self) -> bool:
        """True until a signal comes."""
        return self.asked_at is None

    def is_overdue(self) -> bool:
        """True once the stop has waited long enough for a call that keeps failing."""
        return self.asked_at is not None and time.monotonic() - self.asked_at > DOUBT_SECONDS

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked_at is None:
            self.asked_at = time.monotonic()


def run(
    settings: Settings,
    model: str,
    slot: int,
    start: Start | None,
    at_work: Callable[[], None] | None = None,
) -> None:
    """Run one instance until it is told to stop. Raises ModelwireError where it cannot go on.

    ``at_work`` is called once, when nothing keeps it from joining its group any more.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = Stop()
    stop.listen()
    instance = _name(settings, model, slot)
    structlog.contextvars.bind_contextvars(instance=instance, model=model)
    health = Health(settings.consumer)
    log.info("consumer.start", slot=slot, store=settings.store_url, health_port=health.port)
    if not _await_topics(settings, model, stop):
        return
    reporter = Reporter(
        Announcer(settings, model, instance),
        instance,
        settings.consumer.status_interval_ms / 1_000,
    )
    limits = Limits.of(settings.consumer, settings.cache_folder, slot)
    bundles = open_bundles(settings)
    runtime = runtime_name()
    shadows = ShadowScorer(
        settings, model, instance, runtime, _journal(settings, f"{model}-{slot}-shadow")
    )
    loader = Loader(bundles, model, limits, reporter.changed, shadows.in_use)
    follower = Follower(settings, model, loader, reporter.changed)
    isolation = _isolation(settings, model, slot, bundles, health.pulse.beating(stop.has_not_come))
    service = Service(
        settings.consumer, instance, runtime, follower, loader, reporter, shadows, isolation
    )
    place = Place(service)
    stream = RequestStream(settings, model, instance, place, health.pulse.beating(stop.is_overdue))
    service.attach(stream, stream.record_limit)
    loader.start()
    follower.start()
    shadows.start(lambda: follower.heard.deployment, loader.look_again)
    description = Description(
        settings, model, instance, service, loader, follower, shadows, reporter
    )
    reporter.start(description, Aborts(settings, model, instance, follower).look)
    health.pulse.beat()
    health.watch(description.identity, description.vitals, place)
    clean = False
    try:
        stream.open()
        with suppress(Stopped):
            _run_until(stop, settings, model, service, health.pulse, start, at_work)
        service.stop()
        clean = True
    finally:
        health.stop()
        shadows.stop()
        follower.stop()
        loader.stop()
        reporter.stop(clean=clean)
        gc.unfreeze()
    log.info("consumer.stop", answered=service.answering.transactions.answered)


def _journal(settings: Settings, name: str) -> Journal:
    return Journal(settings.cache_folder / "journal", name)


def _isolation(
    settings: Settings, model: str, slot: int, bundles: Bundles, go_on: Callable[[], bool]
) -> Isolation:
    journal = _journal(settings, f"{model}-{slot}")
    seconds = settings.consumer.score_timeout_ms / 1_000
    room = budget_of(settings.consumer.memory_megabytes).room
    limits = ProbeLimits(seconds, settings.consumer.vet_megabytes * MIB, room)
    return Isolation(journal, SandboxProbe(bundles, limits, go_on), seconds)


def _run_until(
    stop: Stop,
    settings: Settings,
    model: str,
    service: Service,
    pulse: Pulse,
    start: Start | None,
    at_work: Callable[[], None] | None,
) -> None:
    settled = False
    while not stop.asked:
        pulse.beat()
        if not settled and service.may_join():
            # As late as this, so that an instance that cannot serve leaves the group's start alone.
            if settle_start(settings, model, start):
                log.info("group.started", at=start)
            settled = True
            if at_work is not None:
                at_work()
            # What lives now lives to the end: the collector need not walk it again.
            gc.collect()
            gc.freeze()
        service.turn()


def _name(settings: Settings, model: str, slot: int) -> str:
    """The instance's name: in the group, as transactional id, on the fleet topic, in answers."""
    if settings.consumer.membership is Membership.STATIC:
        return f"{group_of(model)}-{slot}"
    return f"{group_of(model)}-{uuid.uuid4().hex[:12]}"


def _await_topics(settings: Settings, model: str, stop: Stop) -> bool:
    """True once the model's topics are there and fit; False if told to stop in the meantime."""
    names = topic_names(settings, model)
    wanted = (names.control, names.requests, names.results, names.rejections, names.fleet)
    deadline = time.monotonic() + BROKER_SECONDS
    while not stop.asked:
        try:
            partitions = require_topics(settings, wanted, model=model)
        except (NotFound, NotPermitted, UsageProblem):
            raise
        except ModelwireError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("broker.away", problem=error.message)
            time.sleep(0.5)
            continue
        if partitions[names.requests] > partitions[names.results]:
            raise Conflict(
                f"{names.requests} has {partitions[names.requests]} partitions and {names.results} "
                f"has {partitions[names.results]}; an answer goes to its request's partition",
                hint=f"complete what was begun: modelwire topics grow {model} "
                f"--partitions {partitions[names.requests]} --yes",
            )
        return True
    return False
