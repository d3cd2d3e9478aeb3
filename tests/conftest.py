"""What all tests of a worker share: one real Kafka broker and one real S3 server, started once.

Tests isolate themselves by names: ``model`` is a model name that no other test has, and so are its
topics, groups and store prefix.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from adapters.settings import S3, Settings, load_settings
from modelwire.localstack.stack import Stack
from modelwire.localstack.stack_info import StackInfo
from tests.fleet import Harness, environment_of

hypothesis.settings.register_profile("modelwire", deadline=None)
hypothesis.settings.load_profile("modelwire")  # a busy machine is no finding

for name in [name for name in os.environ if name.startswith(("MODELWIRE_", "AWS_", "KAFKA_"))]:
    del os.environ[name]  # what the developer has set must not reach a test


@dataclass(frozen=True)
class RunningStack:
    """The addresses of the running servers, and how a test hands them on."""

    info: StackInfo

    @property
    def bootstrap_servers(self) -> str:
        """The broker's address."""
        return self.info.bootstrap_servers

    @property
    def bucket(self) -> str:
        """A bucket that exists."""
        return self.info.s3_bucket

    @property
    def s3(self) -> S3:
        """Endpoint, region and credentials of the S3 server."""
        info = self.info
        return S3(
            endpoint=info.s3_endpoint,
            region=info.s3_region,
            access_key=info.s3_access_key,
            secret_key=info.s3_secret_key,
        )

    def settings(self, prefix: str, **flags: object) -> Settings:
        """Settings for these servers, with the bundles under ``prefix`` of the bucket."""
        return load_settings(
            state_dir=self.info.state_dir,
            store_url=f"s3://{self.bucket}/{prefix}",
            s3=self.s3,
            **flags,
        )

    def environment(self, prefix: str, **settings: str) -> dict[str, str]:
        """The environment of a ``modelwire`` process that uses these servers.

        ``settings`` are further variables without their ``MODELWIRE_`` (``CONSUMER__BATCH_SIZE``).
        """
        info = self.info
        ours = {
            "STATE_DIR": str(info.state_dir),
            "STORE_URL": f"s3://{info.s3_bucket}/{prefix}",
            "S3__ENDPOINT": info.s3_endpoint,
            "S3__REGION": info.s3_region,
            "S3__ACCESS_KEY": info.s3_access_key,
            "S3__SECRET_KEY": info.s3_secret_key,
            **settings,
        }
        return dict(os.environ) | {f"MODELWIRE_{name}": value for name, value in ours.items()}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The servers that all tests of this run share."""
    state_dir = tmp_path_factory.mktemp("stack")
    try:
        yield RunningStack(Stack.up(state_dir, quiet=True))
    finally:
        Stack.down(state_dir)


@pytest.fixture
def model() -> str:
    """A model name that no other test uses."""
    return f"m-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def harness(stack: RunningStack, model: str, tmp_path: Path) -> Iterator[Harness]:
    """A model with topics and an empty store of its own, for tests of consumers."""
    settings = load_settings(
        state_dir=stack.info.state_dir, store_url=(tmp_path / "store").as_uri()
    )
    running = Harness(settings, environment_of(settings), model, tmp_path)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a ``modelwire.toml`` or a ``.modelwire/`` of the developer's."""
    monkeypatch.chdir(tmp_path)
