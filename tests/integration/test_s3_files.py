"""Objects of any name and size copied to files, from a real S3 server behind a proxy with faults."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

from adapters.object_store import S3Settings, StoreUnavailable
from adapters.s3_files import S3Files
from schemas.errors import NotFound
from tests.s3_faults import Down, Fail, Fault, Flip, S3Faults, Truncate

if TYPE_CHECKING:
    from tests.conftest import RunningStack

pytestmark = pytest.mark.stack

CONTENT = bytes(range(256)) * 12_000


@pytest.fixture
def prefix(stack: "RunningStack") -> str:
    """A prefix with three objects, whose names no store of ours would allow."""
    s3, prefix = stack.s3, f"test-{uuid.uuid4().hex}"
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
    )
    for name in ("year=2024/Säle 1.csv", "year=2024/2.csv", "other.csv"):
        client.put_object(Bucket=stack.bucket, Key=f"{prefix}/{name}", Body=CONTENT)
    return prefix


@pytest.fixture
def files(stack: "RunningStack", behind: tuple[str, S3Settings]) -> S3Files:
    """The bucket's objects, seen through the proxy."""
    return S3Files(stack.bucket, "", behind[1])


def test_objects_are_listed_and_copied_whole(files: S3Files, prefix: str, tmp_path: Path) -> None:
    """Names keep their characters, and a copy has every byte."""
    keys = sorted(files.keys(f"{prefix}/year="))
    assert keys == [f"{prefix}/year=2024/2.csv", f"{prefix}/year=2024/Säle 1.csv"]
    files.download(keys[1], tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_what_is_not_there_is_not_found(files: S3Files, prefix: str, tmp_path: Path) -> None:
    """A missing object is told from a missing server."""
    with pytest.raises(NotFound, match=r"there is no .*none"):
        files.download(f"{prefix}/none", tmp_path / "copy")


@pytest.mark.parametrize("fault", [Down(), Fail(), Truncate(1_000_000), Flip()])
def test_a_fault_is_never_believed(
    files: S3Files, faults: S3Faults, prefix: str, tmp_path: Path, fault: Fault
) -> None:
    """Tried three times, then unavailable; when it has passed the copy is right."""
    faults.fault = fault
    with pytest.raises(StoreUnavailable):
        files.download(f"{prefix}/other.csv", tmp_path / "copy")
    faults.fault = None
    files.download(f"{prefix}/other.csv", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
