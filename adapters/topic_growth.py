"""More partitions for a model's topics: what that does to keys and order, and how it is done.

1. Kafka adds partitions and never takes one away. A caller's client puts a key into partition
   ``hash(key) mod partitions``, so growing moves keys: of a uniform hash the share that
   ``moved_share`` gives, exactly.
2. A moved key's older requests wait in its old partition while newer ones come into the new one, and
   partitions are answered side by side. So growing is refused while requests wait, unless the giver of
   the command takes that on.
3. An answer goes to the partition of its request's number. So the topics of answers grow first and the
   requests last: a request never lies where its answer has no place. What was interrupted is found with
   the requests behind the others, and is completed by the same command.
4. Only a model's own topics are touched: all seven are there, and look like what ``adapters.topics``
   makes.

Which version answers a key does not depend on partitions (``deployment.routing``), and the stamp that
keeps revisions from going back is a partition's own.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from confluent_kafka import KafkaError
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from adapters.control_log import require_log
from adapters.group_offsets import waiting_requests
from adapters.kafka import Admin, admin, topic_names
from adapters.settings import Settings
from adapters.topics import VISIBLE_SECONDS, describe, read_configs, topic_specs
from schemas.errors import Conflict, NotFound, RefusedByRule, TimedOut, UsageProblem

GROW_LIMIT_SECONDS = 30.0
"""How long the brokers may take to add one topic's partitions and to find leaders for them."""


def moved_share(before: int, after: int) -> Fraction:
    """The share of keys whose partition changes from ``before`` to ``after`` (more) partitions.

    Of the residues of a uniform hash modulo ``lcm(before, after)`` exactly ``before`` stay: those below
    ``before``. So it is ``1 - before/lcm``, which is ``1 - gcd/after``.
    """
    return 1 - Fraction(before, math.lcm(before, after))


@dataclass(frozen=True)
class Growth:
    """What growing a model's topics to ``after`` partitions starts from."""

    model: str
    before: int
    """Partitions of the request topic now."""
    after: int
    counts: Mapping[str, int]
    """Each topic that grows with its partitions now, in the order in which they grow."""
    waiting: Mapping[int, int]
    """Partition of the requests -> how many of them the group has not answered."""

    @property
    def moved(self) -> Fraction:
        """The share of keys that move to another partition."""
        return moved_share(self.before, self.after)

    @property
    def moved_among_old(self) -> Fraction:
        """The share of keys that move from one old partition to another; 0 for a multiple."""
        return self.moved - Fraction(self.after - self.before, self.after)

    @property
    def was_begun(self) -> bool:
        """Whether an earlier run added partitions to some of the topics and not to the requests."""
        return any(count > self.before for count in self.counts.values())

    @property
    def waits(self) -> int:
        """Requests that wait, in all partitions."""
        return sum(self.waiting.values())


def plan_growth(settings: Settings, model: str, partitions: int) -> Growth:
    """What growing the model's topics to ``partitions`` means now. Changes nothing.

    Raises UsageProblem where that is no growth, NotFound where the model's topics are missing or are
    not a model's, Conflict where their numbers of partitions come from something else than growing.
    """
    counts = _partitions_of(settings, model)
    names = topic_names(settings, model)
    before = counts[names.requests]
    if partitions == before:
        raise UsageProblem(
            f"{names.requests} has {before} partitions already",
            hint=f"to grow it, name more: modelwire topics grow {model} --partitions {2 * before}",
        )
    if partitions < before:
        raise UsageProblem(
            f"{names.requests} has {before} partitions, and Kafka never takes one away",
            hint="make a new model with fewer (topics.partitions), and send its requests there",
        )
    most = max(counts.values())
    if partitions < most:
        raise UsageProblem(
            f"growing to {most} partitions was begun, and Kafka never takes one away",
            hint=f"complete it: modelwire topics grow {model} --partitions {most}",
        )
    if list(counts.values()) != sorted(counts.values(), reverse=True):
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise Conflict(
            f"the topics of {model} have partitions that no interrupted growing leaves: {found}",
            hint=f"make them equal by hand (kafka-topics.sh --alter), {names.requests} last",
        )
    return Growth(model, before, partitions, counts, waiting_requests(settings, model))


def grow_topics(settings: Settings, growth: Growth, *, despite_lag: bool = False) -> None:
    """Adds the partitions; all of them have leaders when it returns.

    Raises RefusedByRule, with nothing done, while requests wait and ``despite_lag`` is False; TimedOut
    where the brokers take too long: the same command goes on from there.
    """
    if growth.waits and not despite_lag:
        raise RefusedByRule(
            f"{growth.waits} requests of {growth.model} wait for their answer, and newer ones of their "
            "keys could be answered before them",
            hint="try again when they are answered, or grow all the same with --despite-lag",
        )
    with admin(settings) as asked:
        for name in growth.counts:
            _grow(asked, name, growth)


def _partitions_of(settings: Settings, model: str) -> dict[str, int]:
    """The partitions of the topics that grow, in their order. Raises NotFound."""
    require_log(settings, model)
    specs = {spec.name: spec for spec in topic_specs(settings, model)}
    with admin(settings) as asked:
        described = describe(asked, specs)
        missing = sorted(set(specs) - set(described))
        if missing:
            raise NotFound(
                f"{model} lacks the topics {', '.join(missing)}",
                hint=f"create what is missing first: modelwire topics create {model}",
            )
        configured = read_configs(asked, specs)
    found = {name: len(description.partitions) for name, description in described.items()}
    names = topic_names(settings, model)
    growing = (names.results, names.shadow, names.actuals, names.requests)
    for name, spec in specs.items():
        policy = next(each for each in spec.settings if each.name == "cleanup.policy")
        has_one = name in growing or found[name] == 1
        if not has_one or not policy.fits(configured[name]["cleanup.policy"]):
            raise NotFound(
                f"{name} is no topic of a model: it has {found[name]} partitions and the "
                f"cleanup.policy {configured[name]['cleanup.policy']}",
                hint="check the model's name and the patterns under [topics]",
            )
    return {name: found[name] for name in growing}


def _grow(asked: Admin, name: str, growth: Growth) -> None:
    """Adds one topic's partitions, and waits for their leaders."""
    if growth.counts[name] < growth.after:
        futures = asked.client.create_partitions(
            [NewPartitions(name, growth.after)],
            operation_timeout=GROW_LIMIT_SECONDS,
            request_timeout=GROW_LIMIT_SECONDS,
        )
        answer = asked.results(futures)[name]
        # INVALID_PARTITIONS: somebody else was faster; what stands now is looked at below.
        if isinstance(answer, KafkaError) and answer.code() != KafkaError.INVALID_PARTITIONS:
            raise asked.explain(answer, f"add partitions to {name}")
    deadline = time.monotonic() + GROW_LIMIT_SECONDS
    while True:
        partitions = describe(asked, [name])[name].partitions
        led = sum(each.leader is not None for each in partitions)
        if len(partitions) > growth.after:
            raise Conflict(
                f"somebody else grew {name} to {len(partitions)} partitions meanwhile",
                hint=f"look at it again: modelwire topics grow {growth.model} "
                f"--partitions {len(partitions)}",
            )
        if led == growth.after:
            return
        if time.monotonic() > deadline:
            raise TimedOut(
                f"{led} of {growth.after} partitions of {name} have a leader after "
                f"{GROW_LIMIT_SECONDS:.0f} s",
                hint=f"go on with: modelwire topics grow {growth.model} "
                f"--partitions {growth.after} --yes",
            )
        time.sleep(VISIBLE_SECONDS)
