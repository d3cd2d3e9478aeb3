"""A model on a running stack, for tests of real consumer processes: its topics, releases, requests.

``Harness`` is one model with its own topics, group and store prefix. Processes that it starts are
ended by ``close``. Nothing here judges answers but ``verify``, which is the shipped checker.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from adapters.control_append import append
from adapters.fleet_topic import Sighting, read_fleet
from adapters.kafka import client_config, topic_names
from adapters.object_store import ObjectStore, open_store
from adapters.settings import Settings
from adapters.topics import create_topics
from deployment.commands import Command, Release, Strategy, Undo
from modelwire.verify_stream import Report, Topics, check_topics
from schemas.events import Recorded
from schemas.fleet import Phase
from schemas.forecast import Forecast, decode_forecast
from schemas.rejection import Rejection, read_rejection

PARTITIONS = 4
Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = 30.0) -> Found:
    """The first thing that ``look`` gives and that is not empty; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still no: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Rejected:
    """A record of the rejections topic."""

    rejection: Rejection
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


class Instance:
    """A consumer process, and the log lines that it has written so far."""

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        self._log = Path(tempfile.mkstemp(suffix=".jsonl", dir=folder)[1])
        with self._log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelwire", *arguments],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=folder,
            )

    @property
    def text(self) -> str:
        """All of stderr."""
        return self._log.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The JSON lines of this event."""
        found = []
        for line in self.text.splitlines():
            if line.startswith("{") and line.endswith("}"):
                parsed = json.loads(line)
                if parsed.get("event") == event:
                    found.append(parsed)
        return found

    def wait_for_line(self, event: str, seconds: float = 30.0) -> dict[str, Any]:
        """The first line of this event."""

        def look() -> dict[str, Any] | None:
            lines = self.lines(event)
            if not lines and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.text}")
            return lines[0] if lines else None

        return wait_for(f"line {event}", look, seconds)

    def wait_for_exit(self, seconds: float = 30.0) -> int:
        """The exit code; fails where the process goes on."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.text[-4_000:]}") from None

    def terminate(self, seconds: float = 10.0) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_for_exit(seconds)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


class Harness:
    """One model on the stack."""

    def __init__(
        self,
        settings: Settings,
        environment: dict[str, str],
        model: str,
        folder: Path,
    ) -> None:
        topics = settings.topics.model_copy(update={"partitions": PARTITIONS})
        self.settings = settings.model_copy(update={"topics": topics})
        self.model = model
        self.topics = topic_names(self.settings, model)
        self.store: ObjectStore = open_store(settings.store_url, settings.s3_settings)
        self.instances: list[Instance] = []
        self.commands: list[Instance] = []
        self._environment = environment | {"MODELWIRE_TOPICS__PARTITIONS": str(PARTITIONS)}
        self.folder = folder
        create_topics(self.settings, model)

    def start(self, slot: int = 0, *arguments: str, **settings: str) -> Instance:
        """Start a consumer; ``settings`` are variables without ``MODELWIRE_``."""
        environment = self._environment | {f"MODELWIRE_{k}": v for k, v in settings.items()}
        instance = Instance(
            ["consume", "--model", self.model, "--slot", str(slot), *arguments],
            environment,
            self.folder,
        )
        self.instances.append(instance)
        return instance

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a ``modelwire`` command to its end; returns what it wrote, stderr last."""
        done = subprocess.run(
            [sys.executable, "-m", "modelwire", *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{said}"
        assert "Traceback" not in said, said
        return said

    def background(self, *arguments: str) -> Instance:
        """Start a ``modelwire`` command that goes on."""
        process = Instance(list(arguments), self._environment, self.folder)
        self.commands.append(process)
        return process

    def command(self, command: Command) -> tuple[Recorded, ...]:
        """Append a command to the control log."""
        return append(
            self.settings,
            self.model,
            command,
            commandid=uuid.uuid4().hex,
            actor="test",
            now=lambda: datetime.now(UTC),
        )

    def release(self, digest: str, *, start: bool = True) -> int:
        """Release a bundle, and start it blue-green; returns the newest revision."""
        strategy = Strategy.BLUE_GREEN if start else None
        return self.command(Release(digest, strategy, uuid.uuid4().hex))[-1].event.revision

    def undo(self) -> int:
        """Bring back the previous champion; returns the newest revision."""
        return self.command(Undo(None))[-1].event.revision

    def producer(self, **properties: object) -> Producer:
        """A producer of requests."""
        return Producer(
            {
                "bootstrap.servers": self.settings.kafka.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 2,
                "log_level": 0,
                "message.timeout.ms": 120_000,
                **properties,
            }
        )

    def send(self, count: int, *, item: str = "a") -> None:
        """Send good requests, numbered, over all partitions."""
        producer = self.producer()
        for number in range(count):
            producer.produce(
                self.topics.requests, good_request(number, item), f"key-{number % 97}".encode()
            )
        assert producer.flush(30) == 0

    def send_raw(self, values: list[bytes | None], *, key: bytes | None = b"key") -> None:
        """Send these bytes as requests, to partition 0."""
        producer = self.producer()
        for value in values:
            producer.produce(self.topics.requests, value, key, 0)
        assert producer.flush(30) == 0

    @contextmanager
    def stream(
        self, rate: int, keys: Sequence[bytes] = tuple(f"key-{n}".encode() for n in range(97))
    ) -> Iterator["Stream"]:
        """Requests at a steady rate while the block runs, their keys in turn."""
        stream = Stream(self, rate, keys)
        stream.start()
        try:
            yield stream
        finally:
            stream.stop()

    def fleet(self) -> list[Sighting]:
        """What the instances say of themselves."""
        return read_fleet(self.settings, self.model)

    def wait_until_ready(self, count: int = 1, seconds: float = 30.0) -> None:
        """Until ``count`` instances answer, and own all partitions between them."""

        def look() -> bool:
            for instance in self.instances:
                code = instance.process.poll()
                assert code in (None, 0, -signal.SIGKILL), instance.text
            ready = [s.status for s in self.fleet() if s.alive and s.status.phase is Phase.READY]
            owned = sorted(p for status in ready for p in status.partitions)
            return len(ready) == count and owned == list(range(PARTITIONS))

        wait_for(f"{count} ready instances", look, seconds)

    def wait_for_revision(self, revision: int, count: int = 1, seconds: float = 30.0) -> None:
        """Until ``count`` live instances answer at this revision or a later one."""

        def look() -> bool:
            return count <= sum(s.alive and s.status.revision >= revision for s in self.fleet())

        wait_for(f"{count} instances at revision {revision}", look, seconds)

    def forecasts(self, count: int, seconds: float = 30.0) -> list[Forecast]:
        """The committed forecasts, at least ``count``."""
        records = self._records(self.topics.results, count, seconds)
        return [decode_forecast(value) for _, value, _ in records if value is not None]

    def keyed_forecasts(self, count: int, seconds: float = 30.0) -> list[tuple[bytes, Forecast]]:
        """The committed forecasts with their keys, at least ``count``."""
        records = self._records(self.topics.results, count, seconds)
        return [(key or b"", decode_forecast(value)) for key, value, _ in records if value]

    def rejections(self, count: int, seconds: float = 30.0) -> list[Rejected]:
        """The committed rejections, at least ``count``."""
        return [
            Rejected(read_rejection(headers), key, value, dict(headers))
            for key, value, headers in self._records(self.topics.rejections, count, seconds)
        ]

    def verify(self, wait_seconds: float = 60.0) -> Report:
        """What the shipped checker says of the model's topics, once every request has an answer."""
        names = self.topics
        topics = Topics(names.requests, names.results, names.rejections, names.control)
        return check_topics(client_config(self.settings), topics, wait_seconds=wait_seconds)

    def close(self) -> None:
        """End every process that is still there."""
        for instance in self.instances + self.commands:
            if instance.process.poll() is None:
                instance.kill()

    def _records(
        self, topic: str, count: int, seconds: float
    ) -> list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]:
        """Committed records up to the ends of the topic's partitions, at least ``count``."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka.bootstrap_servers,
                "group.id": "test-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        partitions = 1 if topic == self.topics.rejections else PARTITIONS
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        found: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = []
        at_end: set[int] = set()
        deadline = time.monotonic() + seconds
        try:
            while len(found) < count or len(at_end) < partitions:
                if time.monotonic() > deadline:
                    raise AssertionError(
                        f"{len(found)} of {count} records in {topic} after {seconds:g} s\n"
                        + "\n".join(i.text[-2_000:] for i in self.instances)
                    )
                for message in consumer.consume(1_000, 0.05):
                    error = message.error()
                    if error is None:
                        at_end.discard(message.partition() or 0)
                        headers = message.headers() or []
                        found.append((message.key(), message.value(), list(headers)))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        at_end.add(message.partition() or 0)
        finally:
            consumer.close()
        return found


class Stream:
    """A thread that sends good requests at a rate until it is stopped."""

    def __init__(self, harness: Harness, rate: int, keys: Sequence[bytes]) -> None:
        self.sent = 0
        self._harness = harness
        self._rate = rate
        self._keys = keys
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; returns when all is acknowledged."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        producer = self._harness.producer()
        topic = self._harness.topics.requests
        began = time.monotonic()
        while not self._stopping.wait(0.01):
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due:
                try:
                    key = self._keys[self.sent % len(self._keys)]
                    producer.produce(topic, good_request(self.sent, "a"), key)
                except BufferError:
                    break
                self.sent += 1
            producer.poll(0)
        assert producer.flush(120) == 0


def good_request(number: int, item: str) -> bytes:
    """A request that every bundle of ``tests.bundles`` answers."""
    return json.dumps(
        {
            "request_id": f"r-{number}",
            "inputs": {"item": item, "units": float(number % 1_000), "date": "2011-12-09"},
        }
    ).encode()


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of processes that use the same servers and store as ``settings``."""
    ours = {
        "KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "STORE_URL": settings.store_url,
        "S3__ENDPOINT": settings.s3.endpoint,
        "S3__REGION": settings.s3.region,
        "S3__ACCESS_KEY": settings.s3.access_key,
        "S3__SECRET_KEY": settings.s3.secret_key,
    }
    return dict(os.environ) | {f"MODELWIRE_{name}": value for name, value in ours.items()}
