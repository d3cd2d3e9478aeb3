"""What only ``s3://`` can meet: missing buckets, wrong credentials, servers that fail half-way.

The real server shows the refusals. What it cannot be made to do, such as breaking off an answer, is
played by a small HTTP server that sends one prepared answer to each request.
"""

import socket
import threading
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest

from adapters.object_store import ObjectStore, S3Settings, StoreUnavailable, TooLarge, open_store
from schemas.errors import ModelwireError, UsageProblem

USES: dict[str, Callable[[ObjectStore], object]] = {
    "write": lambda store: store.put_if_absent("key", b"content"),
    "read": lambda store: store.get("key", limit=100),
    "look for": lambda store: store.exists("key"),
    "list": lambda store: list(store.list()),
}


@pytest.fixture
def settings(stack: Any) -> S3Settings:
    """How to reach the real server."""
    s3 = stack.s3
    return S3Settings(s3.endpoint, s3.region, s3.access_key, s3.secret_key)


@pytest.mark.stack
@pytest.mark.parametrize("use", USES)
def test_a_missing_bucket_is_named(settings: S3Settings, use: str) -> None:
    """Whatever is tried first, the message names the bucket and the server."""
    store = open_store("s3://nobody-made-this", settings)
    with pytest.raises(ModelwireError) as caught:
        USES[use](store)
    assert type(caught.value) is ModelwireError
    assert caught.value.message.startswith(f"cannot {use} ")
    assert "the bucket 'nobody-made-this' does not exist" in caught.value.message
    assert str(settings.endpoint_url) in caught.value.message
    assert "create the bucket" in caught.value.hint


@pytest.mark.stack
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_are_refused(
    settings: S3Settings, stack: Any, use: str, wrong: str
) -> None:
    """A wrong key or secret gives one sentence and where to look, and never shows the secret."""
    refused = replace(settings, **{wrong: "mistaken-for-it"})
    with pytest.raises(ModelwireError) as caught:
        USES[use](open_store(f"s3://{stack.bucket}", refused))
    assert type(caught.value) is ModelwireError
    # An answer to HEAD has no body, so there the server can only say 403.
    said = "refuses access" if use == "look for" else "does not accept the access key or its secret"
    assert said in caught.value.message
    assert "check the S3 credentials" in caught.value.hint
    assert "mistaken-for-it" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("use", USES)
def test_an_unreachable_endpoint_is_transient(use: str) -> None:
    """Where nobody listens, the error names the endpoint and may be tried again."""
    with socket.socket() as reserved:  # bound and not listening: refused, and nobody else's
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(StoreUnavailable, match=f"{endpoint} does not answer") as caught:
            USES[use](open_store("s3://bucket", S3Settings(endpoint, None, "key", "secret")))
    assert "modelwire up" in caught.value.hint


@pytest.mark.parametrize(
    "unusable",
    [
        S3Settings("nonsense", None, "key", "secret"),
        S3Settings("http://127.0.0.1:1", None, "key", None),
        S3Settings("http://127.0.0.1:1", None, None, "secret"),
    ],
)
def test_unusable_settings_are_found_when_the_store_is_opened(unusable: S3Settings) -> None:
    """An endpoint that is no address, and half a pair of credentials, are usage problems."""
    with pytest.raises(UsageProblem, match="the S3 settings"):
        open_store("s3://bucket", unusable)


def test_settings_do_not_show_the_secret() -> None:
    """What prints or logs the settings does not print the secret."""
    assert "hunter2" not in repr(S3Settings(access_key="key", secret_key="hunter2"))


@pytest.mark.stack
def test_names_that_are_no_keys_are_not_listed(settings: S3Settings, stack: Any) -> None:
    """Objects that other programs named in other ways are left out of a listing."""
    prefix = f"test-{uuid.uuid4().hex}"
    client = boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
    )
    for name in ("with space", "good", "sub/.hidden", "umlaut-ü"):
        client.put_object(Bucket=stack.bucket, Key=f"{prefix}/{name}", Body=b"content")
    assert list(open_store(f"s3://{stack.bucket}/{prefix}", settings).list()) == ["good"]


@dataclass
class Answer:
    """One prepared answer; ``length`` is what it claims to send, ``content`` what it sends."""

    status: int
    content: bytes = b""
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class ScriptedServer:
    """Sends ``answers`` in turn, the last one for ever; keeps the requests' headers."""

    endpoint: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)

    def store(self) -> ObjectStore:
        """The store behind this server."""
        return open_store("s3://bucket", S3Settings(self.endpoint, None, "key", "secret"))


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server on a free port of this machine."""
    script = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.requests.append({name.lower(): value for name, value in self.headers.items()})
            answer = script.answers[min(len(script.requests), len(script.answers)) - 1]
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            length = len(answer.content) if answer.length is None else answer.length
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer.content)
            self.close_connection = True

        do_GET = do_PUT = do_HEAD = answer

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>said the server</Message></Error>".encode()


UNDECIDED = Answer(409, _error("ConditionalRequestConflict"))


def test_a_put_is_conditional_and_carries_its_digest(scripted: ScriptedServer) -> None:
    """The server is told to store only where nothing is, and what the body must hash to."""
    scripted.answers = [Answer(200)]
    assert scripted.store().put_if_absent("key", b"content") is True
    (headers,) = scripted.requests
    assert headers["if-none-match"] == "*"
    assert headers["x-amz-checksum-sha256"] == b64encode(sha256(b"content").digest()).decode()


@pytest.mark.parametrize(
    ("last", "written"), [(Answer(200), True), (Answer(412, _error("PreconditionFailed")), False)]
)
def test_an_undecided_put_is_tried_again(
    scripted: ScriptedServer, last: Answer, written: bool
) -> None:
    """409 means that two puts met; the next attempt learns who was first."""
    scripted.answers = [UNDECIDED, UNDECIDED, last]
    assert scripted.store().put_if_absent("key", b"content") is written
    assert len(scripted.requests) == 3


def test_a_put_that_stays_undecided_gives_up(scripted: ScriptedServer) -> None:
    """A server that says 409 for ever is unavailable after a bounded number of attempts."""
    scripted.answers = [UNDECIDED]
    with pytest.raises(StoreUnavailable, match="other writes of this key met it 6 times"):
        scripted.store().put_if_absent("key", b"content")
    assert len(scripted.requests) == 6


def test_an_object_over_the_limit_is_refused_before_its_body(scripted: ScriptedServer) -> None:
    """A terabyte that is announced and never sent is refused by its announced size, at once."""
    scripted.answers = [Answer(200, length=10**12)]
    with pytest.raises(TooLarge) as caught:
        scripted.store().get("key", limit=1_000_000)
    assert caught.value.size == 10**12


def test_a_truncated_body_is_not_taken_for_the_object(scripted: ScriptedServer) -> None:
    """A connection that ends before the announced size is an error that may pass."""
    scripted.answers = [Answer(200, b"half of i", length=18)]
    with pytest.raises(StoreUnavailable, match="cannot read key in s3://bucket"):
        scripted.store().get("key", limit=100)


def test_a_body_damaged_on_the_way_is_noticed(scripted: ScriptedServer) -> None:
    """Where the server sends a checksum, bytes that do not match it are an error that may pass."""
    checksum = b64encode(sha256(b"content").digest()).decode()
    scripted.answers = [Answer(200, b"kontent", headers={"x-amz-checksum-sha256": checksum})]
    with pytest.raises(StoreUnavailable, match="arrived damaged"):
        scripted.store().get("key", limit=100)


def test_a_failing_server_is_asked_three_times(scripted: ScriptedServer) -> None:
    """After three answers of 503 the store is unavailable; what the server said is in the message."""
    scripted.answers = [Answer(503, _error("SlowDown"))]
    with pytest.raises(StoreUnavailable, match="answered 503 SlowDown: said the server"):
        scripted.store().get("key", limit=100)
    assert len(scripted.requests) == 3


def test_one_failure_is_not_seen(scripted: ScriptedServer) -> None:
    """A single 500 is retried without the caller noticing."""
    scripted.answers = [Answer(500, _error("InternalError")), Answer(200, b"content")]
    assert scripted.store().get("key", limit=100) == b"content"


def test_a_refusal_is_permanent(scripted: ScriptedServer) -> None:
    """403 without a better word names the bucket and the rights that are needed."""
    scripted.answers = [Answer(403, _error("AccessDenied"))]
    with pytest.raises(ModelwireError, match="refuses access to the bucket 'bucket'") as caught:
        scripted.store().get("key", limit=100)
    assert not isinstance(caught.value, StoreUnavailable)
    assert "get, put and list" in caught.value.hint
