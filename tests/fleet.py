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
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Producer

from adapters.control_append import append
from adapters.control_log import read_log
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
from tests.traffic import (
    KEYS,
    Record,
    Stream,
    committed_records,
    good_request,
    request_producer,
)

PARTITIONS = 4
LIMIT_SECONDS = 120.0
"""How long a test waits for what must happen, however busy the machine is; it never asserts on it."""

Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = LIMIT_SECONDS) -> Found:
    """The first thing that ``look`` gives and that is not empty; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still no: {what}")
        time.sleep(0.02)


def flat_line(line: str) -> dict[str, Any]:
    """A log line as its writer gave it: ``event``, ``level``, the time, and the event's own fields."""
    parsed = json.loads(line)
    told = parsed.get("modelwire", {})
    return {
        "event": parsed["event"]["action"],
        "level": parsed["log.level"],
        "@timestamp": parsed["@timestamp"],
        **told,
    }


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
                parsed = flat_line(line)
                if parsed["event"] == event:
                    found.append(parsed)
        return found

    def wait_for_line(self, event: str, seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """The first line of this event."""

        def look() -> dict[str, Any] | None:
            lines = self.lines(event)
            if not lines and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.text}")
            return lines[0] if lines else None

        return wait_for(f"line {event}", look, seconds)

    def wait_for_exit(self, seconds: float = LIMIT_SECONDS) -> int:
        """The exit code; fails where the process goes on."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.text[-4_000:]}") from None

    def terminate(self, seconds: float = LIMIT_SECONDS) -> int:
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
            timeout=LIMIT_SECONDS,
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
        """Release a bundle, and start it blue-green, waiting for nobody; gives the newest revision."""
        strategy = Strategy.BLUE_GREEN if start else None
        release = Release(digest, strategy, uuid.uuid4().hex, min_ready=0)
        return self.command(release)[-1].event.revision

    def undo(self) -> int:
        """Bring back the previous champion, by its name; returns the newest revision."""
        previous = read_log(self.settings, self.model).deployment.previous
        return self.command(Undo(previous))[-1].event.revision

    def producer(self, **properties: object) -> Producer:
        """A producer of requests."""
        return request_producer(self.settings.kafka.bootstrap_servers, **properties)

    def send(self, count: int, *, item: str = "a") -> None:
        """Send good requests, numbered, over all partitions."""
        producer = self._quick_producer()
        for number in range(count):
            producer.produce(
                self.topics.requests, good_request(number, item), f"key-{number % 97}".encode()
            )
        assert producer.flush(LIMIT_SECONDS) == 0

    def send_raw(self, values: list[bytes | None], *, key: bytes | None = b"key") -> None:
        """Send these bytes as requests, to partition 0."""
        producer = self._quick_producer()
        for value in values:
            producer.produce(self.topics.requests, value, key, 0)
        assert producer.flush(LIMIT_SECONDS) == 0

    def _quick_producer(self) -> Producer:
        """One that need not ask for an idempotent producer's id first, which takes half a second."""
        return self.producer(**{"enable.idempotence": False, "acks": "all"})

    def stream(self, rate: int, keys: Sequence[bytes] = KEYS) -> Stream:
        """Requests at a steady rate while its block runs, their keys in turn."""
        return Stream(self.settings.kafka.bootstrap_servers, self.topics.requests, rate, keys)

    def fleet(self) -> list[Sighting]:
        """What the instances say of themselves."""
        return read_fleet(self.settings, self.model)

    def wait_until_ready(self, count: int = 1, seconds: float = LIMIT_SECONDS) -> None:
        """Until ``count`` instances answer, and own all partitions between them."""

        def look() -> bool:
            for instance in self.instances:
                code = instance.process.poll()
                assert code in (None, 0, -signal.SIGKILL), instance.text
            ready = [s.status for s in self.fleet() if s.alive and s.status.phase is Phase.READY]
            owned = sorted(p for status in ready for p in status.partitions)
            return len(ready) == count and owned == list(range(PARTITIONS))

        wait_for(f"{count} ready instances", look, seconds)

    def wait_for_revision(
        self, revision: int, count: int = 1, seconds: float = LIMIT_SECONDS
    ) -> None:
        """Until ``count`` live instances answer at this revision or a later one."""

        def look() -> bool:
            return count <= sum(s.alive and s.status.revision >= revision for s in self.fleet())

        wait_for(f"{count} instances at revision {revision}", look, seconds)

    def records(self, topic: str, count: int, seconds: float = LIMIT_SECONDS) -> list[Record]:
        """The committed records of a topic, at least ``count``, up to its ends as they are now."""
        try:
            return committed_records(self.settings.kafka.bootstrap_servers, topic, count, seconds)
        except AssertionError as error:
            said = "\n".join(instance.text[-2_000:] for instance in self.instances)
            raise AssertionError(f"{error}\n{said}") from None

    def forecasts(self, count: int, seconds: float = LIMIT_SECONDS) -> list[Forecast]:
        """The committed forecasts, at least ``count``."""
        return [forecast for _, forecast in self.keyed_forecasts(count, seconds)]

    def keyed_forecasts(
        self, count: int, seconds: float = LIMIT_SECONDS
    ) -> list[tuple[bytes, Forecast]]:
        """The committed forecasts with their keys, at least ``count``."""
        records = self.records(self.topics.results, count, seconds)
        return [(each.key or b"", decode_forecast(each.value or b"")) for each in records]

    def rejections(self, count: int, seconds: float = LIMIT_SECONDS) -> list[Rejected]:
        """The committed rejections, at least ``count``."""
        return [
            Rejected(read_rejection(list(r.headers.items())), r.key, r.value, r.headers)
            for r in self.records(self.topics.rejections, count, seconds)
        ]

    def verify(self, wait_seconds: float = LIMIT_SECONDS) -> Report:
        """What the shipped checker says of the model's topics, once every request has an answer."""
        names = self.topics
        topics = Topics(names.requests, names.results, names.rejections, names.control)
        return check_topics(client_config(self.settings), topics, wait_seconds=wait_seconds)

    def close(self) -> None:
        """End every process that is still there."""
        for instance in self.instances + self.commands:
            if instance.process.poll() is None:
                instance.kill()


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
