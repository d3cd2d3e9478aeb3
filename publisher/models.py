"""Many models: one control topic each. Which there are, and where each stands.

The cluster is asked for its topics; those that have the form of the settings' ``topics.control`` are
models. Each is read by itself: one whose log or fleet cannot be read is a row that says so, and hides no
other.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import KafkaException

from adapters.control_log import read_log
from adapters.fleet_topic import read_fleet
from adapters.kafka import ANSWER_LIMIT_SECONDS, admin
from adapters.model_name import MODEL_NAME_PATTERN
from adapters.settings import Settings
from deployment.moments import read_now
from publisher.status import Status
from schemas.errors import ModelwireError, UsageProblem

AT_ONCE = 8
"""Models that are read at the same time; each needs two connections."""

_PLACE = "{model}"
"""What a pattern of the settings has in the place of the model's name."""


@dataclass(frozen=True)
class Model:
    """A model and its status. ``problem`` says what could not be read: with a status, the fleet."""

    name: str
    status: Status | None
    problem: str = ""


def list_models(settings: Settings) -> list[str]:
    """The name of every model of the cluster, sorted."""
    with admin(settings) as asked:
        try:
            topics = asked.client.list_topics(timeout=ANSWER_LIMIT_SECONDS).topics
        except KafkaException as error:
            raise asked.explain(error.args[0], "list the topics") from error
    return model_names(settings, topics)


def find_models(settings: Settings) -> list[Model]:
    """Every model of the cluster with its status, by name."""
    names = list_models(settings)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda name: _look(settings, name), names))


def model_names(settings: Settings, topics: Iterable[str]) -> list[str]:
    """The models whose control topics are among ``topics``, sorted.

    Raises UsageProblem where the settings give all models one control topic.
    """
    pattern = settings.topics.control
    if _PLACE not in pattern:
        raise UsageProblem(
            f"topics.control is {pattern!r}: it does not name the model, so models cannot be found",
            hint=f"put {_PLACE} into topics.control, such as {_PLACE}.control",
        )
    first, *others = map(re.escape, pattern.split(_PLACE))
    name = f"(?P<model>{MODEL_NAME_PATTERN.strip('^$')})"
    form = re.compile(first + name + "(?P=model)".join(others))
    return sorted(found["model"] for topic in topics if (found := form.fullmatch(topic)))


def _look(settings: Settings, name: str) -> Model:
    try:
        ledger = read_log(settings, name)
    except ModelwireError as error:
        return Model(name, None, error.message)
    if ledger.unaccepted and not ledger.events:
        return Model(name, None, f"none of its {ledger.unaccepted} records is a control event")
    reading = read_now(ledger, datetime.now(UTC))
    try:
        return Model(name, Status(reading, tuple(read_fleet(settings, name))))
    except ModelwireError as error:
        return Model(name, Status(reading), error.message)
