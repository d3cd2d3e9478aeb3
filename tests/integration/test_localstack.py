"""The local stack with its real servers: what starts, what heals, what is refused, what is left alone.

These tests start stacks of their own, because they stop and damage them.
"""

import functools
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import boto3
import msgspec
import psutil
import pytest
from botocore.config import Config
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from modelwire.localstack.jars import Jar, JarCache, locked_jars
from modelwire.localstack.stack import Stack
from modelwire.localstack.stack_info import StackInfo, read_stack
from schemas.errors import ModelwireError, TimedOut
from tests.fleet import LIMIT_SECONDS

pytestmark = pytest.mark.stack


class SharedStack(Protocol):
    """What these tests use of the shared `stack` fixture."""

    @property
    def info(self) -> StackInfo:
        """Its addresses and pids."""


NOWHERE = "http://127.0.0.1:9"  # the discard port, on which nothing listens


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A state folder of the test's own; what runs in it is stopped at the end."""
    folder = tmp_path / "state of ä"
    yield folder
    Stack.down(folder)


def write_one(info: StackInfo, topic: str) -> None:
    """Make a topic and put one record into it."""
    admin = AdminClient({"bootstrap.servers": info.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(LIMIT_SECONDS)
    producer = Producer({"bootstrap.servers": info.bootstrap_servers})
    producer.produce(topic, b"kept")
    assert producer.flush(LIMIT_SECONDS) == 0


def read_one(info: StackInfo, topic: str) -> bytes | None:
    """The first record of a topic."""
    consumer = Consumer({"bootstrap.servers": info.bootstrap_servers, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        message = consumer.poll(LIMIT_SECONDS)
        assert message is not None
        assert message.error() is None
        value: bytes | None = message.value()
        return value
    finally:
        consumer.close()


def modelwire(*arguments: str) -> "subprocess.Popen[str]":
    """The command line as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "modelwire", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_ups_at_once_are_one_stack_and_a_third_changes_nothing(state_dir: Path) -> None:
    """Both commands print the addresses, nothing of Kafka's is on the terminal, `up` is a no-op."""
    both = [modelwire("up", "--state-dir", str(state_dir)) for _ in range(2)]
    answers = [process.communicate(timeout=LIMIT_SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    info = read_stack(state_dir)
    assert info is not None
    for out, err in answers:
        assert info.bootstrap_servers in out
        assert info.s3_endpoint in out
        assert len(out.splitlines()) == 3
        assert all(line.startswith(("starting", "ready", "another")) for line in err.splitlines())
    assert Stack.up(state_dir, quiet=True) == info
    brokers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if f"-Djava.io.tmpdir={state_dir / 'kafka' / 'tmp'}" in (process.info["cmdline"] or [])
    ]
    assert [process.pid for process in brokers] == [info.pids["kafka"]]
    # A session of its own: Ctrl-C in the terminal that started it does not reach it.
    assert os.getsid(info.pids["kafka"]) == info.pids["kafka"]


def test_down_keeps_data_and_ports_and_touches_no_other_stack(
    state_dir: Path, stack: SharedStack
) -> None:
    """After down and up the record is there at the same address; the tests' shared stack lived on."""
    first = Stack.up(state_dir, quiet=True)
    write_one(first, "kept")
    assert Stack.down(state_dir) == ("kafka", "s3")
    assert not any(psutil.pid_exists(pid) for pid in first.pids.values())
    assert not list((state_dir / "run").iterdir())
    assert Stack.down(state_dir) == ()
    assert all(psutil.pid_exists(pid) for pid in stack.info.pids.values())
    second = Stack.up(state_dir, quiet=True)
    assert second.bootstrap_servers == first.bootstrap_servers
    assert second.s3_secret_key == first.s3_secret_key
    assert read_one(second, "kept") == b"kept"


def test_a_killed_broker_comes_back_with_its_data(state_dir: Path) -> None:
    """SIGKILL, then `up`: the same port, the same record; the S3 server was left alone."""
    first = Stack.up(state_dir, quiet=True)
    write_one(first, "kept")
    Stack.kill_broker(state_dir)
    with pytest.raises(ModelwireError, match="no broker"):
        Stack.kill_broker(state_dir)
    second = Stack.restart_broker(state_dir)
    assert second.bootstrap_servers == first.bootstrap_servers
    assert second.pids["kafka"] != first.pids["kafka"]
    assert second.pids["s3"] == first.pids["s3"]
    assert read_one(second, "kept") == b"kept"


def test_heals_a_stale_pid_file_and_a_half_formatted_folder(state_dir: Path) -> None:
    """The pid's present owner lives on, and a start that was broken off leaves no trace."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as innocent:
        (state_dir / "run").mkdir(parents=True)
        (state_dir / "run" / "kafka.pid").write_text(f'{{"pid":{innocent.pid},"token":"aa"}}')
        for broken_off in ("data", "data.new"):
            (state_dir / "kafka" / broken_off).mkdir(parents=True)
            (state_dir / "kafka" / broken_off / "meta.properties").write_text("#\ncluster.id=ab")
        info = Stack.up(state_dir, quiet=True)
        assert info.pids["kafka"] != innocent.pid
        assert not (state_dir / "kafka" / "data.new").exists()
        Stack.down(state_dir)
        assert innocent.poll() is None
        innocent.kill()


def test_topics_without_an_identity_are_not_thrown_away(state_dir: Path) -> None:
    """A data folder that lost its meta.properties stops `up`, which leaves nothing running."""
    topic = state_dir / "kafka" / "data" / "sales.control-0"
    topic.mkdir(parents=True)
    with pytest.raises(ModelwireError, match=r"holds topics but no whole meta\.properties"):
        Stack.up(state_dir, quiet=True)
    assert topic.exists()
    assert not list((state_dir / "run").iterdir())


def test_a_port_in_use_is_named_and_can_be_left(state_dir: Path) -> None:
    """The message names port and holder; with new ports the stack comes up on its old data."""
    first = Stack.up(state_dir, quiet=True)
    write_one(first, "kept")
    with pytest.raises(ModelwireError, match="running stack cannot change"):
        Stack.up(state_dir, quiet=True, new_ports=True)
    Stack.down(state_dir)
    with socket.create_server(("127.0.0.1", first.kafka_port)):
        refused = modelwire("up", "--state-dir", str(state_dir))
        out, err = refused.communicate(timeout=LIMIT_SECONDS)
        assert refused.returncode == 1
        assert out == ""
        assert f"port {first.kafka_port}" in err
        assert f"pid {os.getpid()}" in err
        assert "--new-ports" in err
        assert "Traceback" not in err
        assert not list((state_dir / "run").iterdir())
        second = Stack.up(state_dir, quiet=True, new_ports=True)
    assert second.kafka_port != first.kafka_port
    assert read_one(second, "kept") == b"kept"


def test_a_broker_that_is_late_or_ends_shows_its_log_and_leaves_nothing_running(
    state_dir: Path,
) -> None:
    """Time over is exit code 124; an early end is told with what Kafka said about it."""
    with pytest.raises(
        TimedOut, match=r"kafka was not ready within 0\.05 s; the end of .*kafka\.log"
    ):
        Stack.up(state_dir, quiet=True, limit_seconds=0.05)
    assert not list((state_dir / "run").iterdir())
    meta = state_dir / "kafka" / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(ModelwireError, match=r"(?s)kafka ended during its start.*  \| .*node"):
        Stack.up(state_dir, quiet=True)
    assert not list((state_dir / "run").iterdir())


def test_the_s3_server_takes_large_and_many_part_objects(stack: SharedStack) -> None:
    """The jars that the lock leaves out are not missed, and 40 MB go in one signed request."""
    info = stack.info
    client = boto3.client(
        "s3",
        endpoint_url=info.s3_endpoint,
        region_name=info.s3_region,
        aws_access_key_id=info.s3_access_key,
        aws_secret_access_key=info.s3_secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}),
    )
    bucket, key = info.s3_bucket, "test-localstack/large"
    large = bytes(40 * 2**20)
    client.put_object(Bucket=bucket, Key=key, Body=large)
    assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == large
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, body in enumerate((large[: 5 * 2**20], b"the end"), start=1):
        part = client.upload_part(
            Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(
        Bucket=bucket,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
    )
    size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
    assert size == 5 * 2**20 + len("the end")
    client.delete_object(Bucket=bucket, Key=key)


@pytest.fixture
def copied_cache(tmp_path: Path, stack: SharedStack) -> JarCache:
    """A copy of the filled jar cache that a test may damage; the repository is out of reach."""
    folder = tmp_path / "jars"
    shutil.copytree(JarCache().folder, folder, copy_function=os.link)
    return JarCache(folder, NOWHERE)


def test_a_damaged_jar_is_named_until_it_is_removed(
    state_dir: Path, copied_cache: JarCache
) -> None:
    """`up` and `doctor` both name it, no server starts, and nothing is replaced silently."""
    jar = locked_jars("kafka")[0]
    path = copied_cache.file(jar)
    half = path.read_bytes()[:1000]
    path.unlink()  # the copy is a link: writing through it would damage the shared cache
    path.write_bytes(half)
    with pytest.raises(ModelwireError, match=rf"{path.name}.* is damaged") as caught:
        Stack.up(state_dir, quiet=True, jars=copied_cache)
    assert f"rm {path}" in caught.value.hint
    assert path.read_bytes() == half
    assert not list((state_dir / "run").glob("*.pid"))

    arguments = ["--state-dir", str(state_dir), "--jar-cache", str(copied_cache.folder)]
    doctor = modelwire("doctor", "-o", "json", *arguments)
    out, err = doctor.communicate(timeout=LIMIT_SECONDS)
    assert doctor.returncode == 1, err
    checks = {check["name"]: check for check in msgspec.json.decode(out)}
    assert checks["jars"]["verdict"] == "fail"
    assert checks["jars"]["mend"] == f"rm {path}"
    assert checks["java"]["verdict"] == "ok"


def test_no_network_at_the_first_start_is_one_message(state_dir: Path, tmp_path: Path) -> None:
    """Exit code 1, no traceback, no server, and no half jar in the cache."""
    cache = tmp_path / "jars"
    arguments = ["--state-dir", str(state_dir), "--jar-cache", str(cache)]
    refused = modelwire("up", *arguments, "--maven-repository", NOWHERE)
    out, err = refused.communicate(timeout=LIMIT_SECONDS)
    assert refused.returncode == 1
    assert out == ""
    assert "error: cannot download" in err
    assert "next: connect to the network" in err
    assert "Traceback" not in err
    assert not list(cache.rglob("*.jar"))
    assert not (cache / ".incoming").exists()
    assert not (state_dir / "run").exists()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Serve a folder as a Maven repository on loopback."""
    servers: list[http.server.ThreadingHTTPServer] = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    def serve(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def a_jar(name: str, content: bytes) -> Jar:
    """A lock entry for these bytes."""
    return Jar("org.example", name, "1.0", "", hashlib.sha256(content).hexdigest())


def test_a_download_that_broke_off_is_taken_up_again(
    tmp_path: Path, repository: Callable[[Path], str]
) -> None:
    """Whole jars stay, leftovers of the broken one go, and only what is missing is fetched."""
    contents = {name: name.encode() * 5000 for name in ("one", "two", "three")}
    jars = [a_jar(name, content) for name, content in contents.items()]
    served = JarCache(tmp_path / "served")
    for jar in jars[:2]:
        served.file(jar).parent.mkdir(parents=True)
        served.file(jar).write_bytes(contents[jar.artifact])
    cache = JarCache(tmp_path / "cache", repository(served.folder))
    (cache.folder / ".incoming").mkdir(parents=True)
    (cache.folder / ".incoming" / "half").write_bytes(b"x")
    with pytest.raises(ModelwireError, match=r"cannot download three-1\.0\.jar .* not found there"):
        cache.fetch(jars, lambda done, total: None)

    served.file(jars[2]).parent.mkdir(parents=True)
    served.file(jars[2]).write_bytes(contents["three"])
    seen: list[tuple[int, int]] = []
    fetched = cache.fetch(jars, lambda done, total: seen.append((done, total)))
    assert 1 <= fetched <= 3
    assert seen[0] == (0, fetched)
    assert seen[-1] == (fetched, fetched)
    assert cache.missing(jars) == ()
    assert cache.damaged(jars) == ()
    assert not (cache.folder / ".incoming").exists()
    assert cache.fetch(jars, lambda done, total: None) == 0


def test_a_repository_with_other_bytes_is_refused(
    tmp_path: Path, repository: Callable[[Path], str]
) -> None:
    """Only the locked bytes reach the cache, whoever serves them."""
    jar = a_jar("one", b"the locked bytes")
    served = JarCache(tmp_path / "served")
    served.file(jar).parent.mkdir(parents=True)
    served.file(jar).write_bytes(b"other bytes")
    cache = JarCache(tmp_path / "cache", repository(served.folder))
    with pytest.raises(ModelwireError, match=r"has other bytes for one-1\.0\.jar"):
        cache.fetch([jar], lambda done, total: None)
    assert not list(cache.folder.rglob("*.jar"))
