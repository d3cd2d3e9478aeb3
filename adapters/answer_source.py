"""The answers of a model as its audit reads them: committed records of several topics, by place.

1. Partitions are assigned from positions that the caller names; there is no membership and no rebalance.
2. The positions that ``commit`` leaves with the group are for others to see: how far behind the audit is,
   and up to where files must be. Nothing is resumed from them. Beside each stands up to where nothing
   committed lies behind it: retention that removes marks of transactions alone loses no record.
3. ``reached`` says of a partition that nothing committed lies before a position. It is past the marks of
   transactions, of which offsets have holes.
4. A position that the broker does not have is reported (``gone``) and never jumped over.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)

from adapters.kafka import (
    HOPELESS,
    NO_TOPIC,
    admin,
    client_config,
    explain,
    open_client,
    topic_names,
)
from adapters.settings import Settings
from adapters.stream_calls import is_final
from adapters.stream_config import group_of
from schemas.answer_file import Kind, Record
from schemas.errors import ModelwireError, TimedOut

ASK_SECONDS = 10.0
"""How long a question to the broker may take, with what is said for a moment (``_PASSES``)."""

PAUSE_SECONDS = 0.05
"""Between two tries of it."""

_PASSES = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError._WAIT_COORD,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)
"""What is said for a moment: of a new topic or group, and while a broker restarts."""

log = structlog.get_logger()
Result = TypeVar("Result")


class Place(NamedTuple):
    """A partition of the topic that has the answers of a kind."""

    kind: Kind
    partition: int


class Left(NamedTuple):
    """What is left with the group: the end of the last file, and up to where nothing lies behind it."""

    next: int
    clear: int


@dataclass
class Fetched:
    """What one ``fetch`` gave, in the order of each partition."""

    records: dict[Place, list[Record]] = field(default_factory=dict)
    reached: dict[Place, int] = field(default_factory=dict)
    """Partitions that were read to their ends of that moment, and up to where."""

    gone: set[Place] = field(default_factory=set)
    """Those whose position the broker does not have."""


def topics_of(settings: Settings, model: str) -> dict[Kind, str]:
    """The topic of each kind of answers."""
    names = topic_names(settings, model)
    return {
        Kind.FORECASTS: names.results,
        Kind.REJECTIONS: names.rejections,
        Kind.SHADOW: names.shadow,
        Kind.CONTROL: names.control,
    }


def audit_group(model: str) -> str:
    """The consumer group that has the positions up to which answers are kept."""
    return f"{group_of(model)}-audit"


class AnswerSource:
    """A reader of the answers. Not thread-safe. Raises ModelwireError where no broker answers."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.topics = topics_of(settings, model)
        self.topic_ids: dict[Kind, str] = {}
        """What the cluster calls each topic: one that is made anew under its name has another id."""
        self._kinds = {topic: kind for kind, topic in self.topics.items()}
        self._settings = settings
        self._model = model
        self._servers = settings.kafka.bootstrap_servers
        self._assigned: set[Place] = set()
        config = {
            # What waits in the client, in KiB: the rest of memory is the buffers'.
            "queued.max.messages.kbytes": 16_384,
            "queued.min.messages": 20_000,
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 10,
            "fetch.error.backoff.ms": 100,
        } | settings.kafka.properties
        self._consumer: Consumer = open_client(
            Consumer,
            client_config(settings)
            | config
            | {
                "client.id": audit_group(model),
                "group.id": audit_group(model),
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            },
        )

    # --- what there is

    def places(self) -> list[Place]:
        """Every partition of the topics, whose ``topic_ids`` are read too. Raises NotFound."""
        names = list(self._kinds)
        found = []
        with admin(self._settings) as asked:
            futures = asked.client.describe_topics(
                TopicCollection(names), request_timeout=ASK_SECONDS
            )
            for topic, described in asked.results(futures).items():
                what = f"describe the topic {topic}"
                if isinstance(described, KafkaError):
                    if described.code() in NO_TOPIC:
                        raise explain(described, what, self._servers, model=self._model)
                    raise asked.explain(described, what)
                kind = self._kinds[topic]
                self.topic_ids[kind] = str(described.topic_id)
                found += [Place(kind, number) for number in range(len(described.partitions))]
        return sorted(found, key=lambda place: list(self.topics).index(place.kind))

    def ends(self, place: Place) -> tuple[int, int]:
        """The position of the first record that the broker still has, and that after the last."""
        at = self._partition(place)

        def ask() -> tuple[int, int]:
            # A client does not know of a partition that was just added until it asks.
            if place not in self._assigned:
                self._consumer.list_topics(at.topic, ASK_SECONDS)
            ends = self._consumer.get_watermark_offsets(at, timeout=ASK_SECONDS)
            if ends is None:  # the stubs do not know of it: no answer in time
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return ends

        return self._ask(f"find the ends of {at.topic}", ask)

    def committed(self, places: Iterable[Place]) -> dict[Place, Left]:
        """What ``commit`` left in each of these partitions, where it did."""
        asked = {(self.topics[place.kind], place.partition): place for place in places}

        def ask() -> list[TopicPartition]:
            found = self._consumer.committed(
                [TopicPartition(*each) for each in asked], timeout=ASK_SECONDS
            )
            for each in found:
                if each.error is not None:
                    raise KafkaException(each.error)
            return found

        found = self._ask("read the positions of the audit", ask) if asked else []
        return {
            asked[each.topic, each.partition]: Left(each.offset, _clear_in(each))
            for each in found
            if each.offset >= 0
        }

    # --- reading

    def read_from(self, place: Place, position: int) -> None:
        """Fetch this partition from here on, also where it was read before."""
        at = [self._partition(place, position)]
        try:
            if place in self._assigned:
                self._consumer.incremental_unassign(at)
            self._consumer.incremental_assign(at)
        except KafkaException as error:
            raise self._failed(error, f"read {at[0].topic}") from error
        self._assigned.add(place)

    def fetch(self, limit: int, seconds: float) -> Fetched:
        """Up to ``limit`` records and ends; waits up to ``seconds`` for the first of them."""
        fetched = Fetched()
        try:
            messages = self._consumer.consume(1, seconds)
            if messages:
                messages += self._consumer.consume(limit - 1, 0)
        except KafkaException as error:
            raise self._failed(error, "read answers") from error
        found: dict[tuple[str | None, int | None], list[Record]] = {}
        for message in messages:
            at = (message.topic(), message.partition())
            if message.error() is not None:
                self._judge(self._place(*at), message, fetched)
                continue
            record = Record(
                message.offset(),  # type: ignore[arg-type]
                message.timestamp()[1],
                message.key(),
                message.value(),
                tuple(message.headers() or ()),  # type: ignore[arg-type]
            )
            if at in found:
                found[at].append(record)
            else:
                found[at] = [record]
        fetched.records = {self._place(*at): records for at, records in found.items()}
        return fetched

    def lag(self, positions: Mapping[Place, int]) -> int:
        """How many offsets lie ahead of these positions, as of the last fetch; never asks the broker."""
        ahead = 0
        for place, position in positions.items():
            ends = self._consumer.get_watermark_offsets(self._partition(place), cached=True)
            ahead += max(ends[1] - position, 0) if ends is not None else 0
        return ahead

    def commit(self, positions: Mapping[Place, Left]) -> None:
        """Leave the positions with the group. What fails is only said: no copy depends on them."""
        at = [
            TopicPartition(self.topics[place.kind], place.partition, left.next, str(left.clear))
            for place, left in positions.items()
        ]
        try:
            for each in self._consumer.commit(offsets=at, asynchronous=False) or ():
                if each.error is not None:
                    raise KafkaException(each.error)
        except KafkaException as error:
            log.warning("audit.not_committed", problem=error.args[0].str())

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def _judge(self, place: Place, message: Message, fetched: Fetched) -> None:
        error = message.error()
        assert error is not None
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            fetched.reached[place] = message.offset() or 0
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            fetched.gone.add(place)
        elif is_final(error) or (code in HOPELESS and code not in NO_TOPIC):
            raise explain(error, f"read {message.topic()}", self._servers, model=self._model)
        else:  # a broker that restarts denies topics that exist
            log.warning("audit.read_error", topic=message.topic(), problem=error.str())

    def _ask(self, what: str, call: Callable[[], Result]) -> Result:
        deadline = time.monotonic() + ASK_SECONDS
        while True:
            try:
                return call()
            except KafkaException as error:
                if error.args[0].code() not in _PASSES or time.monotonic() > deadline:
                    raise self._failed(error, what) from error
            time.sleep(PAUSE_SECONDS)

    def _failed(self, error: KafkaException, what: str) -> ModelwireError:
        return explain(error.args[0], what, self._servers, model=self._model)

    def _place(self, topic: str | None, partition: int | None) -> Place:
        assert topic is not None
        assert partition is not None
        return Place(self._kinds[topic], partition)

    def _partition(self, place: Place, position: int = 0) -> TopicPartition:
        return TopicPartition(self.topics[place.kind], place.partition, position)


def _clear_in(committed: TopicPartition) -> int:
    """As ``commit`` left it; somebody else may have committed too."""
    said = str(committed.metadata or "")
    return int(said) if said.isascii() and said.isdigit() else committed.offset


def silent(seconds: float) -> TimedOut:
    """The error where the broker gives neither a record nor an end."""
    return TimedOut(
        f"the broker gave neither an answer nor the end of a topic for {seconds:g} s",
        hint="is the broker up? modelwire doctor",
    )
