"""The shapes of a model's topics, and how they are made.

1. ``create_topics`` makes what is missing and never changes what exists.
2. What exists must have the shape that modelwire rests on. A limit (a retention, a size, a number of
   copies) may be more generous; everything else must be the same. A wrong topic stops the command
   before anything is created.
3. The control log is kept for ever, whatever the broker's defaults are.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not export them
    ConfigResource,
    NewTopic,
    ResourceType,
)

from adapters.kafka import ANSWER_LIMIT_SECONDS, NOT_ALLOWED, Admin, admin, topic_names
from adapters.settings import Settings
from schemas.errors import Conflict, ModelwireError, TimedOut

CREATE_LIMIT_SECONDS = 30.0
"""How long the broker may take to create the topics."""

VISIBLE_SECONDS = 0.02
"""Time between two looks for topics that were just created."""

ECHO_BYTES = 65_536
"""What an answer may add to the request that it echoes."""

DEFAULT_BATCH_BYTES = 1_048_588
"""Kafka's own ``max.message.bytes``. It limits a *batch*, and producers in other people's hands fill
batches up to it, so no topic of ours goes below, however small one request must be."""

_DAY_MS = 24 * 60 * 60 * 1_000
_FOR_EVER = "-1"


class Outcome(StrEnum):
    """What ``create_topics`` did for one topic."""

    CREATED = "created"
    EXISTS = "exists"


class Rule(StrEnum):
    """How a setting of an existing topic is compared with ours."""

    SAME = "same"
    AT_LEAST = "at least"
    """A number that may be larger; -1 is without limit."""
    SAME_SET = "the same set"
    """A comma-separated list in any order."""


@dataclass(frozen=True)
class Setting:
    """One of a topic's settings, by Kafka's name, as text."""

    name: str
    wanted: str
    rule: Rule = Rule.SAME

    def fits(self, found: str) -> bool:
        """Whether an existing topic may have ``found`` here."""
        match self.rule:
            case Rule.SAME:
                return found == self.wanted
            case Rule.SAME_SET:
                return set(found.split(",")) == set(self.wanted.split(","))
            case Rule.AT_LEAST:
                return found == _FOR_EVER or (
                    self.wanted != _FOR_EVER and int(found) >= int(self.wanted)
                )


@dataclass(frozen=True)
class TopicSpec:
    """One topic as modelwire needs it."""

    name: str
    partitions: int
    replication: int
    settings: tuple[Setting, ...]


def request_limit(settings: Settings) -> int:
    """The requests topic's ``max.message.bytes``: one largest request, or a usual batch."""
    return max(DEFAULT_BATCH_BYTES, settings.topics.max_request_bytes + ECHO_BYTES)


def answer_limit(settings: Settings) -> int:
    """``max.message.bytes`` of the topics that echo requests: any request that got in fits."""
    return request_limit(settings) + ECHO_BYTES


def topic_specs(settings: Settings, model: str) -> tuple[TopicSpec, ...]:
    """The model's topics, the control log first."""
    names = topic_names(settings, model)
    many = settings.topics.partitions
    answers = (
        Setting("max.message.bytes", str(answer_limit(settings)), Rule.AT_LEAST),
        # The audit files them by the broker's time: producers' clocks differ.
        _BROKERS_TIME,
    )
    taken = Setting("max.message.bytes", str(request_limit(settings)), Rule.AT_LEAST)
    fleet = (
        Setting("cleanup.policy", "compact,delete", Rule.SAME_SET),
        Setting("retention.ms", str(_DAY_MS), Rule.AT_LEAST),
        # A reader starts at the beginning, and only closed segments are compacted.
        Setting("segment.ms", "300000"),
        # Liveness is judged by the broker's clock alone.
        _BROKERS_TIME,
    )
    return (
        _spec(settings, names.control, 1, _NEVER_LOST),
        _spec(settings, names.requests, many, (*_kept(7), taken)),
        _spec(settings, names.results, many, (*_kept(7), *answers)),
        _spec(settings, names.shadow, many, (*_kept(3), *answers)),
        _spec(settings, names.rejections, 1, (*_kept(30), *answers)),
        _spec(settings, names.fleet, 1, fleet),
        _spec(settings, names.actuals, many, _kept(90)),
    )


def _kept(days: int | str) -> tuple[Setting, ...]:
    milliseconds = days if isinstance(days, str) else str(days * _DAY_MS)
    return (
        Setting("cleanup.policy", "delete", Rule.SAME_SET),
        Setting("retention.ms", milliseconds, Rule.AT_LEAST),
    )


_BROKERS_TIME = Setting("message.timestamp.type", "LogAppendTime")

_NEVER_LOST = (*_kept(_FOR_EVER), Setting("retention.bytes", _FOR_EVER))
"""What keeps a control log for ever."""


def _spec(
    settings: Settings, name: str, partitions: int, particular: tuple[Setting, ...]
) -> TopicSpec:
    copies = settings.topics
    safety = (
        Setting("min.insync.replicas", str(copies.min_insync_replicas), Rule.AT_LEAST),
        Setting("unclean.leader.election.enable", "false"),
    )
    return TopicSpec(name, partitions, copies.replication, (*particular, *safety))


def create_topics(settings: Settings, model: str) -> list[tuple[str, Outcome]]:
    """Makes the model's missing topics; returns each topic with what was done.

    All of them are there when it returns. Raises Conflict, with nothing created, where an existing
    one has another shape.
    """
    specs = topic_specs(settings, model)
    with admin(settings) as asked:
        existing = describe(asked, (spec.name for spec in specs))
        _check(asked, specs, existing)
        missing = [spec for spec in specs if spec.name not in existing]
        lost_race = _create(asked, missing)
        _check(asked, lost_race, _await_all(asked, specs))
    created = {spec.name for spec in missing} - {spec.name for spec in lost_race}
    return [
        (spec.name, Outcome.CREATED if spec.name in created else Outcome.EXISTS) for spec in specs
    ]


def _create(asked: Admin, specs: Iterable[TopicSpec]) -> list[TopicSpec]:
    """Creates the topics; returns those that somebody else created meanwhile."""
    by_name = {spec.name: spec for spec in specs}
    if not by_name:
        return []
    futures = asked.client.create_topics(
        [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=spec.replication,
                config={setting.name: setting.wanted for setting in spec.settings},
            )
            for spec in by_name.values()
        ],
        operation_timeout=CREATE_LIMIT_SECONDS,
        request_timeout=CREATE_LIMIT_SECONDS,
    )
    lost_race = []
    for name, answer in asked.results(futures).items():
        if not isinstance(answer, KafkaError):
            continue
        if answer.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            lost_race.append(by_name[name])
        elif answer.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            raise ModelwireError(
                f"the cluster cannot keep {by_name[name].replication} copies of {name}: "
                f"{answer.str()}",
                hint="set topics.replication to at most the number of brokers",
            )
        else:
            raise asked.explain(answer, f"create the topic {name}")
    return lost_race


def _await_all(asked: Admin, specs: Collection[TopicSpec]) -> dict[str, Any]:
    """The descriptions of all topics: a broker hears of a topic after the controller made it."""
    deadline = time.monotonic() + CREATE_LIMIT_SECONDS
    names = [spec.name for spec in specs]
    while len(described := describe(asked, names)) < len(names):
        if time.monotonic() > deadline:
            missing = [name for name in names if name not in described]
            raise TimedOut(
                f"the topics {', '.join(missing)} were created, but the broker does not know them "
                f"after {CREATE_LIMIT_SECONDS:.0f} s",
                hint="run the command again; it waits for them once more",
            )
        time.sleep(VISIBLE_SECONDS)
    return described


def describe(asked: Admin, names: Iterable[str]) -> dict[str, Any]:
    """The description of each of these topics that exists."""
    futures = asked.client.describe_topics(
        TopicCollection(list(names)), request_timeout=ANSWER_LIMIT_SECONDS
    )
    existing: dict[str, Any] = {}
    for name, answer in asked.results(futures).items():
        if not isinstance(answer, KafkaError):
            existing[name] = answer
        elif answer.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise asked.explain(answer, f"describe the topic {name}")
    return existing


def _check(asked: Admin, specs: Iterable[TopicSpec], existing: Mapping[str, Any]) -> None:
    """Raises Conflict where one of the topics exists in another shape."""
    by_name = {spec.name: spec for spec in specs if spec.name in existing}
    wrong = [
        difference
        for name, configured in read_configs(asked, by_name).items()
        for difference in _differences(by_name[name], existing[name], configured)
    ]
    if wrong:
        raise Conflict(
            "; ".join(wrong),
            hint="alter the topic to the wanted setting (kafka-configs.sh), change the settings "
            "under [topics], or delete the topic if nothing in it is needed",
        )


def read_configs(asked: Admin, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The settings of each of these topics, by Kafka's names, as text."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    futures = asked.client.describe_configs(resources, request_timeout=ANSWER_LIMIT_SECONDS)
    configured = {}
    for resource, answer in asked.results(futures).items():
        if isinstance(answer, KafkaError):
            raise asked.explain(answer, f"read the settings of the topic {resource.name}")
        configured[resource.name] = {name: entry.value for name, entry in answer.items()}
    return configured


def require_kept(settings: Settings, model: str) -> None:
    """Raises Conflict where the model's control topic is set to lose events some day.

    A user who may append need not be allowed to read a topic's settings: then nothing is said.
    """
    name = topic_names(settings, model).control
    with admin(settings) as asked:
        resource = ConfigResource(ResourceType.TOPIC, name)
        futures = asked.client.describe_configs([resource], request_timeout=ANSWER_LIMIT_SECONDS)
        answer = asked.results(futures)[resource]
        if isinstance(answer, KafkaError):
            if answer.code() in NOT_ALLOWED:
                return
            raise asked.explain(answer, f"read the settings of the topic {name}")
    wrong = [
        f"{setting.name} {answer[setting.name].value}, wanted {setting.wanted}"
        for setting in _NEVER_LOST
        if not setting.fits(answer[setting.name].value)
    ]
    if wrong:
        raise Conflict(
            f"the control topic {name} would lose events, so nothing was appended: it has "
            f"{'; '.join(wrong)}",
            hint=f"mend it before anything is lost: kafka-configs.sh --alter --topic {name} "
            "--add-config " + ",".join(f"{each.name}={each.wanted}" for each in _NEVER_LOST),
        )


def _differences(spec: TopicSpec, description: Any, configured: dict[str, str]) -> list[str]:
    partitions = description.partitions
    found = configured | {
        "partitions": str(len(partitions)),
        "replication": str(min(len(partition.replicas) for partition in partitions)),
    }
    shape = (
        Setting("partitions", str(spec.partitions)),
        Setting("replication", str(spec.replication), Rule.AT_LEAST),
    )
    return [
        f"the topic {spec.name} has {setting.name} {found[setting.name]}, "
        f"wanted {'at least ' if setting.rule is Rule.AT_LEAST else ''}{setting.wanted}"
        for setting in (*shape, *spec.settings)
        if not setting.fits(found[setting.name])
    ]
