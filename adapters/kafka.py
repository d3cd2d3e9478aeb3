"""The edge to Kafka: how clients are configured, what their errors mean, which topics a model has.

1. Every client's configuration comes from ``client_config``: the settings' pass-through properties
   first, then what modelwire rests on, which they cannot change. Clients of the control log use
   ``control_config``, which leaves out three more.
2. No line of librdkafka reaches the terminal. Lines go to the ``CLIENT_LOG`` logger and from there to
   structlog, where a service has configured it (``adapters.logs``); a short command has not, or
   switches ``CLIENT_LOG`` off, and tells with ``explain`` what went wrong.
3. A KafkaError leaves this layer as a ``schemas.errors`` error that says what was attempted and what
   to do next.
4. A topic is asked for before it is used: ``assign`` and ``subscribe`` are silent about a missing one.
5. No two models can ever have a topic in common: patterns that would allow it are refused.

Shapes of topics, and their making, are in ``adapters.topics``.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export them
    AdminClient,
    ConfigResource,
    ResourceType,
)

from adapters.settings import Settings
from schemas.errors import Conflict, ModelwireError, NotFound, UsageProblem

ANSWER_LIMIT_SECONDS = 5.0
"""How long a broker may take to answer the first question. A reachable one takes milliseconds."""

REPEAT_SECONDS = 30.0
"""A line of librdkafka that repeats is passed on this often: it retries ten times a second."""

CLIENT_LOG = logging.getLogger("modelwire.librdkafka")
"""Where every client's log lines go."""

_NOT_FOR_THE_CONTROL_LOG = ("isolation.level", "transactional.id", "client.rack")

Client = TypeVar("Client")
Key = TypeVar("Key")


class NotPermitted(ModelwireError):
    """The broker does not let this user in, or not do that; waiting does not change it."""


@dataclass(frozen=True)
class TopicNames:
    """The names of one model's topics."""

    control: str
    requests: str
    results: str
    shadow: str
    rejections: str
    fleet: str
    actuals: str


def topic_names(settings: Settings, model: str) -> TopicNames:
    """The model's topics by the patterns of the settings.

    Raises UsageProblem for patterns by which two topics, of one model or of two, could be the same.
    """
    topics = settings.topics
    _check_patterns(tuple((each.name, getattr(topics, each.name)) for each in fields(TopicNames)))
    return TopicNames(
        control=topics.control.replace("{model}", model),
        requests=topics.requests.replace("{model}", model),
        results=topics.results.replace("{model}", model),
        shadow=topics.shadow.replace("{model}", model),
        rejections=topics.rejections.replace("{model}", model),
        fleet=topics.fleet.replace("{model}", model),
        actuals=topics.actuals.replace("{model}", model),
    )


@cache
def _check_patterns(patterns: tuple[tuple[str, str], ...]) -> None:
    for name, pattern in patterns:
        if pattern.count("{model}") != 1:
            raise UsageProblem(
                f"topics.{name} is {pattern!r}, which does not hold {{model}} once: models would share "
                "the topic",
                hint=f"write it with {{model}}, such as {{model}}.{name}",
            )
    for (name, pattern), (other, its_pattern) in combinations(patterns, 2):
        if _may_meet(pattern, its_pattern):
            raise UsageProblem(
                f"topics.{name} ({pattern!r}) and topics.{other} ({its_pattern!r}) can give the same "
                "topic to two models",
                hint="set them apart by a dot or an underscore, which no model's name holds: "
                f"{{model}}.{name}, {{model}}.{other}",
            )


def _may_meet(pattern: str, other: str) -> bool:
    """Whether two models' names could make the patterns one name.

    The literals before and behind the models' names must agree as far as both reach; what one has more
    of would have to be a part of the other's model, and so of its characters.
    """
    before, _, behind = pattern.partition("{model}")
    its_before, _, its_behind = other.partition("{model}")
    short, long = sorted((before, its_before), key=len)
    brief, lengthy = sorted((behind, its_behind), key=len)
    if not long.startswith(short) or not lengthy.endswith(brief):
        return False
    rest = long[len(short) :] + lengthy[: len(lengthy) - len(brief)]
    return re.fullmatch(r"[a-z0-9-]*", rest) is not None


def client_config(settings: Settings, **properties: Any) -> dict[str, Any]:
    """A client's configuration: the settings' pass-through properties below ``properties``.

    Names have dots, so they are handed in as ``**{"group.id": …}``. Raises UsageProblem where no
    broker is named anywhere.
    """
    servers = settings.kafka.bootstrap_servers
    if not servers:
        raise UsageProblem(
            "no Kafka broker is named and no local stack runs",
            hint="start one with `modelwire up`, or set MODELWIRE_KAFKA__BOOTSTRAP_SERVERS",
        )
    return {
        "client.id": "modelwire",
        **settings.kafka.properties,
        **properties,
        "bootstrap.servers": servers,
        "logger": CLIENT_LOG,
    }


def control_config(settings: Settings, **properties: Any) -> dict[str, Any]:
    """``client_config`` for clients of a control log.

    What would change who reads or writes it (``isolation.level``, ``transactional.id``,
    ``client.rack``) is taken from ``properties`` alone, never from the settings.
    """
    config = client_config(settings)
    for name in _NOT_FOR_THE_CONTROL_LOG:
        config.pop(name, None)
    return config | properties


def open_client(kind: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """A Producer, Consumer or AdminClient. Raises UsageProblem where librdkafka refuses ``config``."""
    try:
        return kind(config)
    except (KafkaException, TypeError, ValueError) as error:
        said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise UsageProblem(
            f"the Kafka client refuses its configuration: {said}",
            hint="mend kafka.properties in modelwire.toml or MODELWIRE_KAFKA__PROPERTIES",
        ) from error


def explain(
    error: KafkaError, what: str, servers: str = "", *, model: str = "MODEL"
) -> ModelwireError:
    """The error of ours that a KafkaError amounts to.

    ``what`` completes "…" in a sentence such as "no Kafka broker answered to …" ("read
    sales.control"); ``servers`` are the addresses that were tried; ``model`` is for what to type next.
    """
    code, said = error.code(), _plain(error.str())
    tried = f" (tried {servers})" if servers else ""
    if code in _NO_ANSWER:
        return ModelwireError(
            f"no Kafka broker answered to {what}{tried}: {said}",
            hint="is the broker up (`modelwire up`, `modelwire doctor`) and the address right?",
        )
    if code == KafkaError._RESOLVE:
        return ModelwireError(
            f"a Kafka broker's host name is not known{tried}: {said}",
            hint="check kafka.bootstrap_servers",
        )
    if code in _NOT_LET_IN:
        return NotPermitted(
            f"the Kafka broker did not let this client in to {what}{tried}: {said}",
            hint="check security.protocol, sasl.* and ssl.* in kafka.properties",
        )
    if code in NOT_ALLOWED:
        return NotPermitted(
            f"the Kafka broker does not allow this user to {what}: {said}",
            hint="ask for the permission (ACL) on the topic, group or transactional id",
        )
    if code in NO_TOPIC:
        return NotFound(
            f"a topic is missing to {what}: {said}",
            hint=f"create it: modelwire topics create {model}",
        )
    if code in FENCED:
        return Conflict(
            f"another process took over while this one tried to {what}: {said}",
            hint="run the command again",
        )
    return ModelwireError(f"Kafka failed to {what}: {said} ({error.name()})")


def _plain(said: str) -> str:
    """librdkafka's sentence without its thread names and the age of the connection."""
    return said.partition(" (after ")[0].replace("/bootstrap: ", ": ")


FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
)
"""Codes that mean: a younger producer has the same ``transactional.id``."""

_NO_ANSWER = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
    }
)
_NOT_LET_IN = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
NOT_ALLOWED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""Codes that mean: this user lacks a permission."""
NO_TOPIC = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""Codes that mean: the topic or the partition is not there, as far as the one who says so knows."""

HOPELESS = _NOT_LET_IN | NOT_ALLOWED | NO_TOPIC
"""Codes of what does not pass by itself."""


class Admin:
    """An AdminClient that translates its errors; every future it hands out is awaited here."""

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka.bootstrap_servers
        self._troubles: list[KafkaError] = []
        config = client_config(settings, error_cb=self._troubles.append)
        self.client = open_client(AdminClient, config)

    def results(self, futures: Mapping[Key, Future[Any]]) -> dict[Key, Any]:
        """What each future gave: its result, or its KafkaError."""
        found: dict[Key, Any] = {}
        for key, future in futures.items():
            try:
                found[key] = future.result()
            except KafkaException as error:
                found[key] = error.args[0]
        return found

    def explain(self, error: KafkaError, what: str) -> ModelwireError:
        """``explain``, with the reason why no connection came about where there was none."""
        if error.code() in _NO_ANSWER:
            self.client.poll(0)
            for codes in (_NOT_LET_IN, {KafkaError._RESOLVE}, {KafkaError._TRANSPORT}):
                for trouble in self._troubles:
                    if trouble.code() in codes:
                        return explain(trouble, what, self._servers)
        return explain(error, what, self._servers)


@contextmanager
def admin(settings: Settings) -> Iterator[Admin]:
    """An ``Admin`` for the duration of a block.

    It is dropped at its end: one that lives on with an open future has crashed the interpreter's exit.
    """
    opened = Admin(settings)
    try:
        yield opened
    finally:
        del opened.client


def require_topics(
    settings: Settings, names: Iterable[str], *, model: str = "MODEL"
) -> dict[str, int]:
    """The number of partitions of each topic; ``model`` is for what to type where one is missing.

    Raises NotFound that names the missing ones, and ModelwireError where no broker answers.
    """
    wanted = sorted(set(names))
    with admin(settings) as asked:
        futures = asked.client.describe_topics(
            TopicCollection(wanted), request_timeout=ANSWER_LIMIT_SECONDS
        )
        found = asked.results(futures)
        missing = []
        for name, answer in found.items():
            if not isinstance(answer, KafkaError):
                continue
            if answer.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise asked.explain(answer, f"describe the topic {name}")
            missing.append(name)
    if missing:
        are = "topic is" if len(missing) == 1 else "topics are"
        raise NotFound(
            f"the {are} missing: {', '.join(missing)}",
            hint=f"create a model's topics: modelwire topics create {model}",
        )
    return {name: len(description.partitions) for name, description in found.items()}


def read_batch_limits(settings: Settings, names: Iterable[str]) -> dict[str, int]:
    """``max.message.bytes`` of each topic; without those whose settings this user may not see.

    Raises NotFound and ModelwireError as ``require_topics`` does.
    """
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    with admin(settings) as asked:
        futures = asked.client.describe_configs(resources, request_timeout=ANSWER_LIMIT_SECONDS)
        limits = {}
        for resource, answer in asked.results(futures).items():
            if not isinstance(answer, KafkaError):
                limits[resource.name] = int(answer["max.message.bytes"].value)
            elif answer.code() not in NOT_ALLOWED:
                raise asked.explain(answer, f"read the settings of the topic {resource.name}")
    return limits


class _ToStructlog(logging.Handler):
    """Passes a client's lines on to structlog, a repeated one only every ``REPEAT_SECONDS``."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_on: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """One line. librdkafka's errors are warnings here: it goes on by itself."""
        if not structlog.is_configured():
            return
        line = record.getMessage()
        kind = _plain(line)  # without the milliseconds, which differ each time
        now = time.monotonic()
        if now - self._passed_on.get(kind, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        if len(self._passed_on) >= 1_000:  # a line with an ever new text must not fill the memory
            self._passed_on.clear()
        self._passed_on[kind] = now
        log = structlog.get_logger("modelwire.kafka")
        write = log.warning if record.levelno >= logging.WARNING else log.debug
        write("kafka.client", line=line)


CLIENT_LOG.addHandler(_ToStructlog())
CLIENT_LOG.propagate = False
