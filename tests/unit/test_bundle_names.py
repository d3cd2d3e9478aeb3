"""What people type names one bundle, or is turned down with a reason."""

from pathlib import Path

import pytest

from adapters.bundle_names import find_bundle
from adapters.object_store import ObjectStore, open_store
from schemas.errors import NotFound, UsageProblem

ONE = "abcdef" + "1" * 58
OTHER = "abcdef" + "2" * 58
THIRD = "3" * 64


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A store with three bundles, two of which begin alike."""
    opened = open_store((tmp_path / "store").as_uri())
    for digits in (ONE, OTHER, THIRD):
        opened.put_if_absent(f"bundles/{digits}/manifest.json", b"{}")
    return opened


def test_a_bundle_is_found_by_digest_prefix_and_address(store: ObjectStore, tmp_path: Path) -> None:
    """The whole digest, the first digits, the URI and the folder's path name the same bundle."""
    folder = tmp_path / "store" / "bundles" / THIRD
    for text in (
        f"sha256:{THIRD}",
        THIRD,
        THIRD[:6],
        f"sha256:{THIRD[:20]}",
        f"{store.url}/bundles/{THIRD}",
        f"{store.url}/bundles/{THIRD}/",
        str(folder),
    ):
        assert find_bundle(store, text) == f"sha256:{THIRD}"


def test_a_prefix_of_two_bundles_is_turned_down(store: ObjectStore) -> None:
    """Both bundles are named; one digit more tells them apart."""
    with pytest.raises(UsageProblem, match="2 bundles begin with abcdef") as problem:
        find_bundle(store, "abcdef")
    assert ONE in problem.value.message
    assert OTHER in problem.value.message
    assert find_bundle(store, "abcdef1") == f"sha256:{ONE}"


def test_a_prefix_of_no_bundle_is_not_found(store: ObjectStore) -> None:
    """The store that was searched is named."""
    with pytest.raises(NotFound, match=store.url):
        find_bundle(store, "fedcba")


@pytest.mark.parametrize("text", ["abcde", "", "sha256:", "ABCDEF0", "nothex", "a" * 65])
def test_what_names_no_bundle_is_a_usage_problem(store: ObjectStore, text: str) -> None:
    """Too short, too long, or not hexadecimal."""
    with pytest.raises(UsageProblem, match="names no bundle"):
        find_bundle(store, text)


def test_a_bundle_in_another_store_is_turned_down(store: ObjectStore) -> None:
    """Consumers would look for it in vain."""
    with pytest.raises(UsageProblem, match="lies in s3://elsewhere"):
        find_bundle(store, f"s3://elsewhere/bundles/{THIRD}")
    with pytest.raises(UsageProblem, match="not the address of a bundle"):
        find_bundle(store, f"{store.url}/bundles/{THIRD[:10]}")
