"""What a model's group has committed: where it starts where it has not, and what waits for it.

A group without offsets is new, or its offsets were lost (they expired, the group was deleted, the
cluster was restored). Only the answers tell which: with committed results or rejections it would
answer requests a second time from the earliest on, or leave some out from the latest on. So it is not
guessed; whoever starts the group says which.

The same holds for a single partition without an offset in a group that has others. A partition that
was just added has no answers, and is read from its beginning, whatever the start says: all that lies in
it came after it was made.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from adapters.kafka import client_config, explain, open_client, require_topics, topic_names
from adapters.settings import Settings
from adapters.stream_config import group_of
from schemas.errors import RefusedByRule, TimedOut

ASK_SECONDS = 10.0

FIRST_OFFSET = 0
"""Where reading starts; a broker that has it no more sends us to its first one. Asking for the beginning
by name costs a new client half a second."""

PAUSE_SECONDS = 0.05

_COORDINATOR_MOVES = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError._WAIT_COORD,
    }
)
"""What a broker says for a moment: about a cluster's first group, and after a restart."""


class Start(StrEnum):
    """The end of the request topic from which a group without offsets answers."""

    EARLIEST = "earliest"
    LATEST = "latest"


def settle_start(settings: Settings, model: str, start: Start | None) -> bool:
    """See to it that the group knows where to start; True where ``start`` was put to use.

    A partition with an offset goes on from it, whatever ``start`` says. Raises RefusedByRule for one
    without where answers stand already and ``start`` is None.
    """
    names = topic_names(settings, model)
    count = require_topics(settings, [names.requests], model=model)[names.requests]
    what = "find where the group starts"
    with _asking(settings, model, what, settled=False) as consumer:
        # An open transaction, such as that of a peer that died, is no reason to wait: an offset that
        # stands below it is an offset.
        lacking = _without_offset(consumer, names.requests, range(count))
        if not lacking:
            return False
    with _asking(settings, model, what) as consumer:
        lacking = _without_offset(consumer, names.requests, lacking)
        if not lacking:
            return False
        if len(lacking) == count:
            if start is None:
                places = _places(settings, model, [names.results, names.rejections])
                if not _holding_records(consumer, places):
                    return False
        else:
            results = _places(settings, model, [names.results])
            held = [place for place in results if place.partition in lacking]
            answered = {partition for _, partition in _holding_records(consumer, held)}
            # A partition without answers starts at its beginning by itself.
            lacking = lacking & answered
        if start is None:
            # Looked for again: a peer's first commit may have come between the two looks.
            lacking = _without_offset(consumer, names.requests, lacking)
            if lacking:
                raise _unclear(settings, model, lacking, count)
            return False
        if not lacking:
            return False
        _place(consumer, names.requests, lacking, start)
        return True


def waiting_requests(settings: Settings, model: str) -> dict[int, int]:
    """Partition -> how many requests in it the group has not answered yet.

    Counted in offsets, of which a caller's transactions take one each; a partition in which nothing but
    such marks follows the group's offset has 0.
    """
    topic = topic_names(settings, model).requests
    partitions = range(require_topics(settings, [topic], model=model)[topic])
    with _asking(settings, model, "find what waits for the group") as consumer:
        waiting = {}
        behind = []
        for place in _committed(consumer, topic, partitions):
            low, high = _ends(consumer, place)
            begin = max(place.offset, low)
            waiting[place.partition] = high - begin
            if high > begin:
                behind.append(TopicPartition(topic, place.partition, begin))
        holding = {partition for _, partition in _holding_records(consumer, behind)}
    return {partition: lag if partition in holding else 0 for partition, lag in waiting.items()}


def _unclear(settings: Settings, model: str, lacking: set[int], count: int) -> RefusedByRule:
    names = topic_names(settings, model)
    if len(lacking) == count:
        where, answers = (
            "no committed offsets",
            f"{names.results} or {names.rejections} hold answers",
        )
    else:
        numbers = ", ".join(map(str, sorted(lacking)))
        where, answers = (
            f"no committed offsets of the partitions {numbers} of {names.requests}",
            f"{names.results} holds answers to them",
        )
    return RefusedByRule(
        f"group {group_of(model)} has {where}, but {answers}: starting anywhere may double or lose some",
        hint="say where to start: --from earliest (answers everything that is kept "
        "again) or --from latest (answers only what comes from now on)",
    )


@contextmanager
def _asking(
    settings: Settings, model: str, what: str, *, settled: bool = True
) -> Iterator[Consumer]:
    """A client that may ask for the group's offsets and never joins it.

    With ``settled`` an answer waits for open transactions that have offsets of the group.
    """
    config = client_config(
        settings,
        **{
            "group.id": group_of(model),
            "enable.auto.commit": False,
            "isolation.level": "read_committed" if settled else "read_uncommitted",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        },
    )
    consumer: Consumer = open_client(Consumer, config)
    try:
        yield consumer
    except KafkaException as error:
        servers = settings.kafka.bootstrap_servers
        raise explain(error.args[0], what, servers, model=model) from error
    finally:
        consumer.close()


def _committed(
    consumer: Consumer, topic: str, partitions: range | set[int]
) -> list[TopicPartition]:
    """The group's offsets, below 0 where there is none."""
    asked = [TopicPartition(topic, partition) for partition in partitions]
    if not asked:
        return []
    deadline = time.monotonic() + ASK_SECONDS
    while True:
        try:
            found = consumer.committed(asked, timeout=ASK_SECONDS)
            for each in found:
                if each.error is not None:
                    raise KafkaException(each.error)
            return found
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR_MOVES or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def _without_offset(consumer: Consumer, topic: str, partitions: range | set[int]) -> set[int]:
    return {each.partition for each in _committed(consumer, topic, partitions) if each.offset < 0}


def _places(settings: Settings, model: str, topics: list[str]) -> list[TopicPartition]:
    """Every partition of the topics, at its beginning."""
    counts = require_topics(settings, topics, model=model)
    return [
        TopicPartition(topic, partition, FIRST_OFFSET)
        for topic, count in counts.items()
        for partition in range(count)
    ]


def _holding_records(consumer: Consumer, places: list[TopicPartition]) -> set[tuple[str, int]]:
    """Where a committed record stands at the offset or after it; watermarks count aborted ones too."""
    pending = {(place.topic, place.partition) for place in places}
    holding = set()
    consumer.assign(places)
    deadline = time.monotonic() + ASK_SECONDS
    while pending:
        message = consumer.poll(0.1)
        if message is None:
            if time.monotonic() > deadline:
                topics = ", ".join(sorted({topic for topic, _ in pending}))
                raise TimedOut(f"{topics} could not be read within {ASK_SECONDS:.0f} s")
            continue
        place = (str(message.topic()), int(message.partition() or 0))
        error = message.error()
        if error is None:
            holding.add(place)
            if place in pending:
                consumer.pause([TopicPartition(*place)])
        elif error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        pending.discard(place)
    return holding


def _ends(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    ends = consumer.get_watermark_offsets(place, timeout=ASK_SECONDS)
    if ends is None:  # the stubs do not know of it: no answer in time
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return ends


def _place(consumer: Consumer, topic: str, partitions: set[int], start: Start) -> None:
    places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
    for each in places:
        low, high = _ends(consumer, each)
        each.offset = low if start is Start.EARLIEST else high
    try:
        consumer.commit(offsets=places, asynchronous=False)
    except KafkaException as error:
        code = error.args[0].code()
        if code in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION):
            return  # another instance placed them in between, and answers already
        raise
