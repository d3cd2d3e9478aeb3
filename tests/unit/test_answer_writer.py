"""The writer of answers, as far as it needs no broker: what becomes of a forecast that is not taken."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from adapters import answer_writer
from adapters.answer_writer import AnswerWriter
from adapters.settings import Settings
from adapters.stream_calls import Calls
from schemas.forecast import Variant
from scoring.batch import ForecastAnswer, Incoming

LIMIT = 10_000


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> tuple[AnswerWriter, list[tuple[Any, ...]]]:
    """A writer, and what its producer was handed; a value's first word says how it takes it."""
    taken: list[tuple[Any, ...]] = []
    waits = [0]

    def produce(topic: str, value: bytes, key: bytes | None, partition: int) -> None:
        match value.split()[0]:
            case b"large":
                raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            case b"full" if waits[0] < 3:
                waits[0] += 1
                raise BufferError
        taken.append((topic, partition, key, value))

    producer = SimpleNamespace(produce=produce, poll=lambda seconds: 0)
    monkeypatch.setattr(answer_writer, "open_client", lambda kind, config: producer)
    monkeypatch.setattr(answer_writer, "taken_record_limit", lambda settings, model: LIMIT)
    settings = Settings(kafka={"bootstrap_servers": "h:1"})  # type: ignore[arg-type]
    calls = Calls(settings, "m", "i", lambda: False)
    return AnswerWriter(settings, "m", "i", calls, lambda: None), taken


def forecast(offset: int, value: bytes) -> ForecastAnswer:
    incoming = Incoming("m.requests", offset % 2, offset, 1_000, b"k%d" % offset, b"{}")
    return ForecastAnswer(incoming, value, Variant.CHAMPION)


def test_forecasts_are_written_in_order_beside_their_requests(
    written: tuple[AnswerWriter, list[tuple[Any, ...]]],
) -> None:
    """Key and partition are the request's. A full queue is waited for, and nothing overtakes."""
    writer, taken = written
    values = [b"a", b"full once", b"b", b"c"]
    assert writer.produce_forecasts(map(forecast, range(4), values)) == []
    assert taken == [
        ("m.results", offset % 2, b"k%d" % offset, value) for offset, value in enumerate(values)
    ]


def test_a_forecast_beyond_the_limit_is_told_and_the_others_are_written(
    written: tuple[AnswerWriter, list[tuple[Any, ...]]],
) -> None:
    """By its place; what stands before and behind it is taken."""
    writer, taken = written
    values = [b"large", b"a", b"large", b"b"]
    assert writer.produce_forecasts(map(forecast, range(4), values)) == [0, 2]
    assert [value for *_, value in taken] == [b"a", b"b"]
