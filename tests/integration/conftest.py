"""What tests of an S3 server at fault share (a proxy before it, a store and consumers behind that), and
those of the audit: a run whose answers are kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.object_store import S3Settings
from adapters.settings import load_settings
from tests.audited import AuditedRun, audited_run
from tests.fleet import Harness, environment_of
from tests.s3_faults import S3Faults

if TYPE_CHECKING:
    from tests.conftest import RunningStack


@pytest.fixture
def faults(stack: "RunningStack") -> Iterator[S3Faults]:
    """The proxy before the S3 server."""
    proxy = S3Faults(stack.s3.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def behind(stack: "RunningStack", faults: S3Faults, model: str) -> tuple[str, S3Settings]:
    """How to open an empty store behind the proxy."""
    s3 = stack.s3
    settings = S3Settings(faults.endpoint, s3.region, s3.access_key, s3.secret_key)
    return f"s3://{stack.bucket}/behind-{model}", settings


@pytest.fixture
def harness_behind(
    stack: "RunningStack", model: str, tmp_path: Path, faults: S3Faults
) -> Iterator[Harness]:
    """A model whose bundles are on the S3 server, which only consumers reach through the proxy."""
    settings = stack.settings(f"consumed-{model}")
    environment = environment_of(settings) | {"MODELWIRE_S3__ENDPOINT": faults.endpoint}
    running = Harness(settings, environment, model, tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="session")
def audited(
    stack: "RunningStack", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AuditedRun]:
    """A run whose answers are kept. Who changes its stores has to restore them."""
    folder = tmp_path_factory.mktemp("audited")
    settings = load_settings(state_dir=stack.info.state_dir, store_url=(folder / "store").as_uri())
    harness = Harness(settings, environment_of(settings), "audited", folder)
    try:
        yield audited_run(harness)
    finally:
        harness.close()
