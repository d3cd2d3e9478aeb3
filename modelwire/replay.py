"""Replays held-out days as requests, at a steady rate.

A bundle's ``holdout.parquet`` holds raw inputs that training never saw, with what was really sold. Each
row becomes one request, keyed by its series (``series_key``), so that a series stays on one partition.
Rows come in an order that the seed shuffles, every row once a pass: a version that answers for a few
seconds meets all weekdays, and scores of versions can be compared.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import KafkaError, Message, Producer

from adapters.bundles import read_file, read_manifest
from adapters.kafka import client_config, explain, open_client, topic_names
from adapters.object_store import ObjectStore, open_store
from adapters.settings import Settings
from deployment.state import Deployment
from schemas.contract import Contract, FieldType
from schemas.errors import ModelwireError, NotFound
from schemas.manifest import ACTUAL, HOLDOUT_NAME, Manifest
from schemas.request import Request

TICK_SECONDS = 0.01
"""Requests that are due within one of these are handed over together."""

FLUSH_SECONDS = 30.0
"""How long unacknowledged requests are awaited at the end."""

PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    "compression.type": "lz4",
    # As Java clients place keys, so that a series has one partition whoever asks.
    "partitioner": "murmur2_random",
}
"""How requests are written: none lost, none doubled, in order."""


@dataclass(frozen=True)
class HeldOutRow:
    """A held-out row: the request's key and raw inputs (JSON), and what was sold on that day."""

    key: bytes
    inputs: bytes
    actual: float


def series_key(contract: Contract, inputs: Mapping[str, Any]) -> bytes | None:
    """What ``inputs`` are about: the contract's keys joined with ``|``; None where one is not there.

    Keys are the text fields and, where the contract has a horizon, the required whole numbers: a panel's
    stores are often numbered.
    """
    parts = []
    for each in contract.fields:
        is_number = each.type is FieldType.INT64 and each.required and contract.horizon is not None
        if each.type is FieldType.STRING or is_number:
            value = inputs.get(each.name)
            if type(value) is not (int if is_number else str):
                return None
            parts.append(str(value))
    return "|".join(parts).encode() if parts else None


def bundle_to_imitate(settings: Settings, deployment: Deployment) -> tuple[str, Manifest]:
    """Digest and manifest of the champion's bundle, or of the newest released one.

    Raises NotFound where nothing is released.
    """
    number = deployment.champion
    if number is None:
        able = [each.version for each in deployment.releases.values() if each.may_serve]
        number = max(able, default=None)
    if number is None:
        raise NotFound(
            f"{deployment.model} has no released version, so what it reads is not known",
            hint="release one: modelwire release publish BUNDLE --start blue-green",
        )
    digest = deployment.releases[number].digest
    return digest, read_manifest(_store(settings), digest)


def read_holdout(settings: Settings, digest: str, manifest: Manifest) -> list[HeldOutRow]:
    """The held-out rows of a bundle. Raises ModelwireError where there are none."""
    if HOLDOUT_NAME not in manifest.files:
        raise ModelwireError(
            f"the bundle {digest} holds no {HOLDOUT_NAME}, so there is nothing to replay",
            hint="send requests of your own: modelwire request send",
        )
    content = read_file(_store(settings), digest, manifest, HOLDOUT_NAME)
    try:
        return held_out_rows(content, manifest.contract)
    except (pa.ArrowInvalid, KeyError) as error:
        raise ModelwireError(
            f"{HOLDOUT_NAME} of the bundle {digest} does not fit its contract: {error}"
        ) from error


def held_out_rows(content: bytes, contract: Contract) -> list[HeldOutRow]:
    """The rows of a Parquet file that has a column for each field, and ``actual``."""
    names = [field.name for field in contract.fields]
    table = pq.read_table(BytesIO(content))
    columns = [table.column(name).to_pylist() for name in (*names, ACTUAL)]
    rows = []
    for *values, actual in zip(*columns, strict=True):
        inputs = dict(zip(names, values, strict=True))
        rows.append(
            HeldOutRow(
                key=series_key(contract, inputs) or b"",
                inputs=msgspec.json.encode(inputs),
                actual=float(actual),
            )
        )
    if not rows:
        raise KeyError("it has no rows")
    return rows


def endless(rows: list[HeldOutRow], seed: int) -> Iterator[HeldOutRow]:
    """The rows again and again, shuffled anew for each pass."""
    order = random.Random(seed)
    while True:
        yield from order.sample(rows, len(rows))


class Replay:
    """Sends requests at a steady rate, and counts what the broker acknowledged.

    ``run_id`` must be new: request ids are ``<run_id>-<number>``. One thread calls ``run``; another
    may read the counts and call ``stop``.
    """

    def __init__(
        self, settings: Settings, model: str, rows: Iterator[HeldOutRow], run_id: str
    ) -> None:
        self._topic = topic_names(settings, model).requests
        self._servers = settings.kafka.bootstrap_servers
        self._rows = rows
        self._run_id = run_id
        self._producer = open_client(Producer, client_config(settings, **PRODUCER))
        self._failure: KafkaError | None = None
        self._stopped = False
        self.sent = 0
        self.acknowledged = 0
        self.failed = 0

    def stop(self) -> None:
        """Let ``run`` end after the requests that are on their way."""
        self._stopped = True

    def run(self, rate: float, count: int | None, now: Callable[[], datetime]) -> None:
        """Send ``count`` requests (None: until ``stop``), ``rate`` a second.

        Behind schedule it catches up, so the average holds. Raises ModelwireError where a request was
        not acknowledged.
        """
        started = time.monotonic()
        while not self._stopped and self._failure is None:
            due = int((time.monotonic() - started) * rate) + 1
            if count is not None:
                due = min(due, count)
            while self.sent < due:
                self._send(next(self._rows), now())
            if self.sent == count:
                break
            self._producer.poll(TICK_SECONDS)
            time.sleep(max(0.0, min(TICK_SECONDS, started + self.sent / rate - time.monotonic())))
        self.finish()

    def finish(self) -> None:
        """Await what is on its way. Raises ModelwireError where a request was not acknowledged."""
        unacknowledged = self._producer.flush(FLUSH_SECONDS) + self.failed
        if self._failure is not None:
            raise explain(self._failure, f"write to {self._topic}", self._servers)
        if unacknowledged:
            raise ModelwireError(
                f"{unacknowledged} of {self.sent} requests were not acknowledged within "
                f"{FLUSH_SECONDS:.0f} s",
                hint="is the broker up? modelwire doctor",
            )

    def _send(self, row: HeldOutRow, at: datetime) -> None:
        request = Request(f"{self._run_id}-{self.sent}", msgspec.Raw(row.inputs), at)
        value = msgspec.json.encode(request)
        while True:
            try:
                self._producer.produce(
                    self._topic, value, row.key or None, on_delivery=self._delivered
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self.sent += 1

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self.failed += 1
            self._failure = self._failure or error


def utc_now() -> datetime:
    """The wall clock, for ``requested_at``."""
    return datetime.now(UTC)


def _store(settings: Settings) -> ObjectStore:
    return open_store(settings.store_url, settings.s3_settings)
