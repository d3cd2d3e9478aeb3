"""Sends rejected requests again, each at most once however often it is asked for.

1. A request that is sent again has the original bytes and key, and a header that says where it lay
   when it was rejected (``modelwire-replay-of``). It is a new request, with a new answer.
2. What was sent again already is known from these headers alone: the request topic is read from a time
   before the oldest chosen rejection. Nothing else remembers it, so nothing can disagree.
3. Requests are written in transactions. One that was interrupted is aborted, by the next run at the
   latest: it fences the older one and aborts what that left open before it looks. So a run that was
   interrupted anywhere is repeated by the same command, and two runs at once cannot both send.
4. What the request topic has deleted since it can say nothing about. A rejection that is older is not
   sent, unless it is said that it may be sent twice.

Transactions are short, since an open one holds up every reader of the requests behind it.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from confluent_kafka import KafkaException, Producer

from adapters.kafka import TopicNames, client_config, explain, open_client
from adapters.settings import Settings
from adapters.topics import answer_limit
from modelwire.rejected import (
    CALL_SECONDS,
    Choice,
    Place,
    Rejected,
    beginnings,
    committed,
    headers_of,
    open_reader,
    place_of,
    read_again,
    read_rejected,
)
from modelwire.replay import PRODUCER
from schemas.errors import ModelwireError
from schemas.rejection import REPLAY_HEADER

MOST_REQUESTS = 500
MOST_BYTES = 4 * 1024 * 1024
"""What one transaction holds; a few tenths of a second at the most."""

TRANSACTION_MS = 10_000
"""After this the broker aborts what a process that was killed left open."""

COMMIT_SECONDS = 30.0

CLOCKS_MS = 3_600_000
"""How far the clocks of those who write may be apart, in milliseconds: an hour."""


class Skip(StrEnum):
    """Why a chosen rejection is not sent again."""

    NOT_KEPT = "not-kept"
    """The request had no value, or none that fitted the rejections topic."""
    REPLAYED = "replayed"
    """It was sent again already."""
    FORGOTTEN = "forgotten"
    """The request topic no longer tells whether it was sent again."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a plan keeps of a rejection: all but the request's bytes."""

    time_ms: int
    reason: str
    source: Place
    key: bytes | None
    size: int
    is_kept: bool


@dataclass(frozen=True)
class Plan:
    """What is to be sent, by its places in the rejections topic, and what is not.

    ``missing`` are the sources that were named and of which no chosen rejection tells.
    """

    send: dict[Place, Chosen]
    skipped: Counter[Skip]
    missing: frozenset[Place]

    @property
    def matched(self) -> int:
        """The rejections that were chosen."""
        return len(self.send) + self.skipped.total()


@dataclass(frozen=True)
class Topics:
    """A model's topics, and how many partitions those two have."""

    names: TopicNames
    requests: int
    rejections: int


def make_plan(settings: Settings, topics: Topics, choice: Choice, *, again: bool) -> Plan:
    """Look up what is chosen, and what was sent already; ``again`` looks for the former only."""
    chosen = {
        each.place: Chosen(
            each.time_ms,
            each.rejection.reason,
            each.source,
            each.key,
            each.size,
            each.value is not None,
        )
        for each in read_rejected(settings, topics.names.rejections, topics.rejections, choice)
    }
    oldest = min((each.time_ms for each in chosen.values()), default=0) - CLOCKS_MS
    past = Past(frozenset(), 0)
    if chosen and not again:
        past = _read_past(settings, topics, max(oldest, 0))
    send: dict[Place, Chosen] = {}
    skipped: Counter[Skip] = Counter()
    for place, each in chosen.items():
        if not each.is_kept:
            skipped[Skip.NOT_KEPT] += 1
        elif each.source in past.replayed:
            skipped[Skip.REPLAYED] += 1
        elif each.time_ms - CLOCKS_MS < past.known_from_ms:
            skipped[Skip.FORGOTTEN] += 1
        else:
            send[place] = each
    return Plan(send, skipped, choice.sources - {each.source for each in chosen.values()})


@dataclass(frozen=True)
class Past:
    """What the request topic says of earlier replays, and from which time on it says all."""

    replayed: frozenset[Place]
    known_from_ms: int


def _read_past(settings: Settings, topics: Topics, since_ms: int) -> Past:
    name = topics.names.requests
    cut = _cut_partitions(settings, name, topics.requests, since_ms)
    replayed: set[Place] = set()
    known_from_ms = 0
    for message in committed(settings, name, range(topics.requests), since_ms):
        if cut and message.partition() in cut:
            cut.discard(place_of(message)[0])
            known_from_ms = max(known_from_ms, message.timestamp()[1])
        for header, value in headers_of(message):
            if header == REPLAY_HEADER:
                _, _, place = value.partition(f"{name}/".encode())
                with suppress(ValueError):
                    number, _, lay_at = place.partition(b"/")
                    replayed.add((int(number), int(lay_at)))
    if cut:  # nothing is left of them
        known_from_ms = int(time.time() * 1_000)
    return Past(frozenset(replayed), known_from_ms)


def _cut_partitions(settings: Settings, topic: str, partitions: int, since_ms: int) -> set[int]:
    """The partitions that have deleted records, and hold none from before this time: what they
    deleted may be younger."""
    reader = open_reader(settings)
    try:
        cut = set()
        for place in beginnings(reader, topic, range(partitions), since_ms):
            first, end = reader.get_watermark_offsets(place, CALL_SECONDS)
            is_empty = first == end
            if first > 0 and (is_empty or 0 <= place.offset <= first):
                cut.add(place.partition)
        return cut
    except KafkaException as error:
        raise explain(error.args[0], f"find the beginning of {topic}") from error
    except TypeError:  # None, which the stubs do not know: no answer in time
        raise ModelwireError(
            f"the broker does not tell where {topic} begins",
            hint="is the broker up? modelwire doctor",
        ) from None
    finally:
        reader.close()


class Resender:
    """The one writer of a model's replays. Opening it ends every older one."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self._what = f"send requests again to {topics.names.requests}"
        config = {
            **PRODUCER,
            "transactional.id": f"{topics.names.requests}-replay",
            "transaction.timeout.ms": TRANSACTION_MS,
            "retry.backoff.ms": 10,
            "message.max.bytes": answer_limit(settings),
        }
        self._producer = open_client(Producer, client_config(settings, **config))
        with self._explained():
            self._producer.init_transactions(COMMIT_SECONDS)

    def send(self, plan: Plan) -> Iterator[int]:
        """Send what the plan names; yields after each transaction how many it committed."""
        rejected = read_again(self._settings, self._topics.names.rejections, plan.send)
        for some in _portions(rejected):
            with self._explained():
                self._producer.begin_transaction()
                try:
                    for each in some:
                        self._produce(each)
                    self._commit()
                except BaseException:
                    with suppress(KafkaException):  # what matters is what came before it
                        self._producer.abort_transaction(CALL_SECONDS)
                    raise
            yield len(some)

    def _produce(self, rejected: Rejected) -> None:
        topic = self._topics.names.requests
        partition, offset = rejected.source
        headers = [(REPLAY_HEADER, f"{topic}/{partition}/{offset}".encode())]
        while True:
            try:
                self._producer.produce(topic, rejected.value, rejected.key, headers=list(headers))
                return
            except BufferError:
                self._producer.poll(0.1)

    def _commit(self) -> None:
        deadline = time.monotonic() + COMMIT_SECONDS
        while True:
            try:
                self._producer.commit_transaction(CALL_SECONDS)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise explain(error.args[0], self._what) from error


def _portions(rejected: Iterable[Rejected]) -> Iterator[list[Rejected]]:
    """What goes into one transaction each."""
    portion: list[Rejected] = []
    size = 0
    for each in rejected:
        portion.append(each)
        size += each.size
        if len(portion) == MOST_REQUESTS or size >= MOST_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
