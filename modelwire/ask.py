"""One request by hand: its inputs from text, its way to the topic, and its answer.

1. Text becomes a typed value by the contract: a name that is no field, a missing required field and a
   text that is not of its type are the caller's mistakes, found here. Limits are the consumer's to
   judge, and so is whatever comes from a file: a request that will be rejected can be sent on purpose.
2. An answer is found by where the request lay, never by its id, which may repeat. Reading starts at
   the ends that the answer topics had before the request was written.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import msgspec
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from adapters.kafka import client_config, explain, open_client, require_topics, topic_names
from adapters.settings import Settings
from modelwire.replay import PRODUCER
from schemas.contract import Contract, Field, FieldType
from schemas.errors import TimedOut, UsageProblem
from schemas.forecast import Source
from schemas.rejection import Rejection, read_rejection
from schemas.request import Request

CALL_SECONDS = 10.0
"""How long the broker may take to acknowledge the request or to tell the end of a topic."""


@dataclass(frozen=True)
class Sent:
    """A request that the broker acknowledged, and where it lies."""

    request_id: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Answered:
    """The answer's JSON, and whether it is a rejection."""

    text: bytes
    rejected: bool


def typed_inputs(contract: Contract, texts: Mapping[str, str]) -> dict[str, Any]:
    """``name=text`` pairs as the contract types them. ``null`` is null where the field allows it.

    Raises UsageProblem that names the field.
    """
    fields = {field.name: field for field in contract.fields}
    listed = ", ".join(f"{field.name} ({field.type})" for field in contract.fields)
    for name in texts:
        if name not in fields:
            raise UsageProblem(f"the model reads no field {name!r}", hint=f"its fields: {listed}")
    missing = [name for name, field in fields.items() if field.required and name not in texts]
    if missing:
        raise UsageProblem(
            f"required and not given: {', '.join(missing)}",
            hint=" ".join(f"--set {name}=…" for name in missing),
        )
    return {name: _typed(fields[name], text) for name, text in texts.items()}


def _typed(field: Field, text: str) -> Any:
    if field.nullable and text == "null":
        return None
    try:
        return _parse(field.type, text)
    except (ValueError, KeyError):
        raise UsageProblem(
            f"{field.name}={text} is not a {field.type}", hint=f"{field.name}: {field.description}"
        ) from None


def _parse(kind: FieldType, text: str) -> Any:
    match kind:
        case FieldType.STRING:
            return text
        case FieldType.INT64:
            return int(text)
        case FieldType.FLOAT64 | FieldType.FLOAT32:
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        case FieldType.BOOL:
            return {"true": True, "false": False}[text.lower()]
        case FieldType.DATE:
            return date.fromisoformat(text).isoformat()


class Caller:
    """Writes one request to a model's topic, and finds its answer.

    Open it before the request is sent: answers are looked for from then on.
    """

    def __init__(self, settings: Settings, model: str) -> None:
        """Raises NotFound where the model has no topics."""
        self._settings = settings
        self._names = topic_names(settings, model)
        answers = (self._names.results, self._names.rejections)
        self._partitions = require_topics(settings, (self._names.requests, *answers))
        self._consumer: Consumer | None = None

    def send(self, request: Request, key: bytes | None) -> Sent:
        """Write the request and await the broker's acknowledgement."""
        reports: list[tuple[KafkaError | None, Message]] = []
        producer = open_client(Producer, client_config(self._settings, **PRODUCER))
        producer.produce(
            self._names.requests,
            msgspec.json.encode(request),
            key,
            on_delivery=lambda error, message: reports.append((error, message)),
        )
        producer.flush(CALL_SECONDS)
        if not reports:
            raise TimedOut(
                f"the broker did not acknowledge the request within {CALL_SECONDS:.0f} s",
                hint="it may still arrive; send it again with another --id if it must not be lost",
            )
        error, message = reports[0]
        if error is not None:
            raise explain(error, f"write to {self._names.requests}")
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        return Sent(request.request_id, self._names.requests, partition, offset)

    def listen(self) -> None:
        """Remember where the answer topics end now; ``answer_to`` reads from there."""
        config = client_config(
            self._settings,
            **{
                "group.id": "modelwire-request",  # demanded by the client, never joined
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
            },
        )
        self._consumer = consumer = open_client(Consumer, config)
        consumer.assign([_end(consumer, topic, number) for topic, number in self._answering()])

    def answer_to(self, sent: Sent, limit_seconds: float) -> Answered:
        """The answer to a request. Raises TimedOut."""
        assert self._consumer is not None, "listen() comes first"
        deadline = time.monotonic() + limit_seconds
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.1)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.fatal():
                    raise explain(error, "read the answer")
                continue
            answer = self._read(message, sent)
            if answer is not None:
                return answer
        raise TimedOut(
            f"no answer to {sent.topic}/{sent.partition}/{sent.offset} in {limit_seconds:g} s",
            hint="does a consumer run? modelwire rollout status",
        )

    def close(self) -> None:
        """Stop listening."""
        if self._consumer is not None:
            self._consumer.close()

    def _answering(self) -> Iterator[tuple[str, int]]:
        for topic in (self._names.results, self._names.rejections):
            for number in range(self._partitions[topic]):
                yield topic, number

    def _read(self, message: Message, sent: Sent) -> Answered | None:
        value = message.value() or b""
        if message.topic() == self._names.rejections:
            rejection = _rejection_in(message)
            if rejection is None or not _is_for(rejection.source, sent):
                return None
            return Answered(msgspec.json.encode(rejection), rejected=True)
        try:
            forecast = _decode_source(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return Answered(value, rejected=False) if _is_for(forecast.source, sent) else None


class _Sourced(msgspec.Struct):
    source: Source


_decode_source = msgspec.json.Decoder(_Sourced).decode


def _is_for(source: Source, sent: Sent) -> bool:
    where = (source.topic, source.partition, source.offset)
    return where == (sent.topic, sent.partition, sent.offset)


def _rejection_in(message: Message) -> Rejection | None:
    headers = message.headers() or []
    assert isinstance(headers, list)
    try:
        return read_rejection([(name, v if isinstance(v, bytes) else b"") for name, v in headers])
    except ValueError:
        return None


def _end(consumer: Consumer, topic: str, number: int) -> TopicPartition:
    deadline = time.monotonic() + CALL_SECONDS
    while True:
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=1.0)
            return TopicPartition(topic, number, end)
        except TypeError:  # None, which the stubs do not know: no answer in time
            error = KafkaError(KafkaError._TIMED_OUT)
        except KafkaException as failure:  # a partition that was just made has no leader yet
            error = failure.args[0]
        if time.monotonic() > deadline:
            raise explain(error, f"find the end of {topic}")
        time.sleep(0.05)


def request_of(request_id: str, inputs: bytes, at: datetime) -> Request:
    """The request with raw inputs (JSON). Raises UsageProblem where they are no JSON object."""
    try:
        if not isinstance(msgspec.json.decode(inputs), dict):
            raise UsageProblem("the inputs are not a JSON object", hint='such as {"item": "a"}')
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageProblem(f"the inputs are not JSON: {error}") from error
    return Request(request_id, msgspec.Raw(inputs.strip()), at)
