"""The local Kafka broker: one KRaft node, broker and controller in one process.

Formatting happens in a folder beside the data folder and becomes visible by one rename, so a start
that was broken off leaves nothing half-formatted. A data folder that is half-formatted all the same
(by hand, by a full disk) is made anew if it holds no topic; if it does, nothing is deleted and the
error says so.
"""

import re
import shlex
import shutil
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from enum import StrEnum
from pathlib import Path

from modelwire.localstack.ports import LOOPBACK
from modelwire.localstack.processes import ServerProcess
from modelwire.localstack.runtime import QUICK_START, QUIET
from modelwire.localstack.stack_info import KAFKA, command
from schemas.errors import ModelwireError

NODE_ID = 1
HEAP = ("-Xms64m", "-Xmx384m")
LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)
FORMAT_SECONDS = 60.0
INTERNAL_LOG = "__cluster_metadata-0"


def server_properties(kafka_port: int, controller_port: int, data: str = "data") -> str:
    """The broker's configuration. `data` is relative to the folder in which the broker runs."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{LOOPBACK}:{controller_port}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{kafka_port},"
        f"CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{kafka_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        # A mistyped topic must be an error, not a new topic with settings that nobody chose.
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # Consumers may be given up sooner than the broker's own 6 s.
        "group.min.session.timeout.ms": 1_000,
        # Not sooner: looked for within a second of a restart, before partitions have their leaders, a
        # transaction that is too old was aborted without its markers, and the next one of its
        # producer committed it (Kafka 4.3.1).
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 10_000,
        # 30 days: committed offsets must outlive the requests, which are kept for 7.
        "offsets.retention.minutes": 43_200,
        # After SIGKILL the controller refuses the broker for this long (a duplicate registration).
        # The default of 9 s would be the largest part of a restart.
        "broker.session.timeout.ms": 3_000,
        "broker.heartbeat.interval.ms": 500,
        # One node for one user: these would otherwise hold 128 MB and two dozen threads.
        "log.cleaner.dedupe.buffer.size": 16_777_216,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


class Data(StrEnum):
    """What a data folder is."""

    ABSENT = "absent"
    FORMATTED = "formatted"
    HALF_FORMATTED = "half-formatted"  # no usable identity, and no topics either
    ORPHANED = "orphaned"  # topics, but no usable identity


def cluster_id(meta_properties: str) -> str | None:
    """The cluster's id in a `meta.properties`, or None when the file is not whole."""
    keys = dict(re.findall(r"^([\w.]+)=(\S+)\s*$", meta_properties, flags=re.MULTILINE))
    whole = {"version", "node.id", "cluster.id", "directory.id"} <= keys.keys()
    return keys["cluster.id"] if whole else None


def inspect(data: Path) -> Data:
    """Judge a data folder without changing it."""
    if not data.exists():
        return Data.ABSENT
    if _cluster_id_of(data) is not None and (data / "bootstrap.checkpoint").exists():
        return Data.FORMATTED
    topics = [entry for entry in data.iterdir() if entry.is_dir() and entry.name != INTERNAL_LOG]
    return Data.ORPHANED if topics else Data.HALF_FORMATTED


class Broker:
    """The broker of one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self.process = ServerProcess(KAFKA, state_dir)
        self.folder = self.process.folder
        self.data = self.folder / "data"

    def start(self, java: Path, class_path: str, kafka_port: int, controller_port: int) -> int:
        """Format the data folder if need be, then start the process; returns its pid.

        Raises ModelwireError when formatting fails or the data folder is orphaned.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ensure_formatted(java, class_path, kafka_port, controller_port)
        properties = self.folder / "server.properties"
        properties.write_text(server_properties(kafka_port, controller_port), encoding="utf-8")
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)  # native libraries of past starts
        return self.process.start(
            java,
            [*HEAP, *QUICK_START, *QUIET, *LOGGING, "kafka.Kafka", "server.properties"],
            class_path,
        )

    def wait_ready(self, bootstrap_servers: str, limit_seconds: float) -> None:
        """Return when a real client is served by this very broker.

        Raises ModelwireError with the tail of the log when the process ends or the time is over.
        """
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        expected = _cluster_id_of(self.data)
        deadline = time.monotonic() + limit_seconds
        client = AdminClient(
            {
                "bootstrap.servers": bootstrap_servers,
                "log_level": 0,  # refused connections are expected here and no news
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
            }
        )
        while True:
            try:
                metadata = client.list_topics(timeout=0.5)
            except KafkaException:
                metadata = None
            if metadata is not None and metadata.brokers:
                if metadata.cluster_id == expected:
                    return
                raise ModelwireError(
                    f"another Kafka cluster ({metadata.cluster_id}) answers on {bootstrap_servers}",
                    hint="stop that one, or move this one: "
                    f"{command('down', self.process.state_dir)} && "
                    f"{command('up --new-ports', self.process.state_dir)}",
                )
            if self.process.pid() is None:
                raise self.process.failed("ended during its start")
            if time.monotonic() > deadline:
                raise self.process.failed(
                    f"was not ready within {limit_seconds:g} s", timed_out=True
                )
            time.sleep(0.02)

    def _ensure_formatted(
        self, java: Path, class_path: str, kafka_port: int, controller_port: int
    ) -> None:
        state = inspect(self.data)
        if state is Data.FORMATTED:
            return
        if state is Data.ORPHANED:
            raise ModelwireError(
                f"{self.data} holds topics but no whole meta.properties and bootstrap.checkpoint",
                hint="put those files back, or start empty and lose the topics: "
                f"rm -r {shlex.quote(str(self.data))}; {command('up', self.process.state_dir)}",
            )
        fresh = self.folder / "data.new"
        for leftover in (fresh, self.data):
            shutil.rmtree(leftover, ignore_errors=True)
        properties = self.folder / "format.properties"
        properties.write_text(
            server_properties(kafka_port, controller_port, data=fresh.name), encoding="utf-8"
        )
        self._format(java, class_path, properties)
        fresh.rename(self.data)
        properties.unlink()

    def _format(self, java: Path, class_path: str, properties: Path) -> None:
        new_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={new_id}"]
        try:
            answer = subprocess.run(
                [str(java), *QUICK_START, *QUIET, *LOGGING, *tool, f"--config={properties.name}"],
                capture_output=True,
                text=True,
                errors="replace",
                cwd=self.folder,
                env={"CLASSPATH": class_path, "LC_ALL": "C.UTF-8"},
                timeout=FORMAT_SECONDS,
                check=False,
            )
            failure = "" if answer.returncode == 0 else answer.stdout + answer.stderr
        except subprocess.TimeoutExpired:
            failure = f"not done after {FORMAT_SECONDS:.0f} s"
        if failure:
            last_lines = "\n".join(f"  | {line}" for line in failure.splitlines()[-10:])
            raise ModelwireError(
                f"Kafka's data folder in {self.folder} cannot be formatted:\n{last_lines}",
                hint=f"{command('doctor', self.process.state_dir)} says what is short",
            )


def _cluster_id_of(data: Path) -> str | None:
    try:
        return cluster_id((data / "meta.properties").read_text(encoding="utf-8"))
    except OSError:
        return None
