"""Bundles in an object store: how they are written, found and checked.

A bundle lives at ``bundles/<64 hex digits of its digest>/``. Rules:

1. The manifest is written last, after every file that it names is stored. A bundle is there when
   its manifest is; what a killed writer leaves without one is no bundle, and the same write
   completes it.
2. Nothing is written that would not be readable: the files match the manifest, and the manifest
   decodes.
3. Nothing is believed because of where it lay. At every read the manifest must hash to the digest
   that was asked for, and a file to the digest and size that the manifest states.
4. A size is checked before a body is read: a manifest against a fixed limit, a file against the
   manifest.

What the files mean is for ``schemas.manifest`` and for those who load a model. A digest is always
the string ``sha256:<64 hex digits>``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from adapters.object_store import ObjectStore, RemovableStore, TooLarge, problem_of_key
from schemas.errors import Conflict, ModelwireError, NotFound, UsageProblem
from schemas.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Manifest,
    decode_manifest,
    digest_of,
    encode_manifest,
)

ELSEWHERE = (
    "what was trained before `modelwire up`, or in another folder, lies in another store, and `modelwire "
    "bundle copy DIGEST --from file:///folder/.modelwire/store` brings it to this one"
)
"""Where a bundle may be that a store does not have."""

_FOLDER = "bundles"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MANIFEST_KEY = re.compile(rf"{_FOLDER}/([0-9a-f]{{64}})/{re.escape(MANIFEST_NAME)}")


class BundleDamaged(ModelwireError):
    """What is stored is not what the digest or the manifest says; trying again does not help."""


class NoManifest(ModelwireError):
    """The bytes hash to the digest and are no manifest: a bundle made again has another digest."""


class Bundles(Protocol):
    """Where bundles are read from, each byte checked. Raises as the two functions of these names do."""

    def read_manifest(self, digest: str) -> Manifest:
        """The manifest whose bytes hash to ``digest``."""
        ...

    def read_file(self, digest: str, manifest: Manifest, name: str) -> bytes:
        """A file of the bundle, once its size and digest are those in ``manifest``."""
        ...

    def look_at_store(self) -> None:
        """Say in a log line where the store cannot be asked, if nothing else has shown it."""
        ...


class StoredBundles:
    """The bundles of a store, asked each time."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read_manifest(self, digest: str) -> Manifest:
        """As the function of this name."""
        return read_manifest(self._store, digest)

    def read_file(self, digest: str, manifest: Manifest, name: str) -> bytes:
        """As the function of this name."""
        return read_file(self._store, digest, manifest, name)

    def look_at_store(self) -> None:
        """Each read shows it."""


def write_bundle(store: ObjectStore, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Stores a bundle and returns its digest; the same bundle twice is fine.

    ``files`` maps each name of ``manifest.files`` to its content. Raises ModelwireError, with
    nothing written, where they do not match, and Conflict where the store already holds something
    else under a key of this bundle.
    """
    raw = encode_manifest(manifest)
    digest = digest_of(raw)
    _check_before_writing(manifest, raw, files)
    keys = {_key(digest, name): files[name] for name in sorted(files)}
    for key, content in keys.items():
        _put(store, digest, key, content)
    _put(store, digest, _key(digest, MANIFEST_NAME), raw)
    return digest


def copy_bundle(source: ObjectStore, target: ObjectStore, digest: str) -> bool:
    """Copies a bundle, each file checked against its digest; False where it was there already.

    One file is in memory at a time, and the manifest goes last, byte for byte. What the target already
    has is compared. Raises as ``read_manifest`` and ``read_file`` do of the source, and Conflict where
    the target holds something else under a key of this bundle.
    """
    raw = read_manifest_bytes(source, digest)
    manifest = manifest_in(source, digest, raw)
    was_there = is_stored(target, digest)
    for name in sorted(manifest.files):
        _put(target, digest, _key(digest, name), read_file(source, digest, manifest, name))
    _put(target, digest, _key(digest, MANIFEST_NAME), raw)
    return not was_there


def check_writable(store: ObjectStore) -> None:
    """Raises ModelwireError where nothing can be stored here, before anybody works for hours.

    The only sure test is a write: the same few bytes under ``bundles/writable``, which are no bundle.
    """
    store.put_if_absent(f"{_FOLDER}/writable", b"modelwire can write here\n")


def read_manifest(store: ObjectStore, digest: str) -> Manifest:
    """The manifest whose bytes hash to ``digest``.

    Raises NotFound where there is no such bundle, BundleDamaged where its bytes are others, and
    NoManifest where they are no manifest.
    """
    return manifest_in(store, digest, read_manifest_bytes(store, digest))


def is_stored(store: ObjectStore, digest: str) -> bool:
    """Whether the store has a manifest of this name; its bytes are not looked at."""
    return store.exists(_key(digest, MANIFEST_NAME))


def read_manifest_bytes(store: ObjectStore, digest: str) -> bytes:
    """The bytes of a manifest, once they hash to ``digest``; raises as ``read_manifest``."""
    key = _key(digest, MANIFEST_NAME)
    try:
        raw = store.get(key, limit=MAX_MANIFEST_BYTES)
    except NotFound as error:
        raise NotFound(
            f"there is no bundle {digest} in {store.url}",
            hint=f"check the digest and the store; {ELSEWHERE}",
        ) from error
    except TooLarge as error:
        raise _damaged(
            store, digest, MANIFEST_NAME, f"it has {error.size} bytes, over {MAX_MANIFEST_BYTES}"
        ) from error
    found = digest_of(raw)
    if found != digest:
        raise _damaged(store, digest, MANIFEST_NAME, f"expected {digest}, found {found}")
    return raw


def manifest_in(store: ObjectStore, digest: str, raw: bytes) -> Manifest:
    """The manifest in these bytes of the bundle. Raises NoManifest where they are none."""
    try:
        return decode_manifest(raw)
    except ModelwireError as error:
        raise NoManifest(
            f"bundle {digest} in {store.url}: {error.message}", hint=error.hint
        ) from error


def read_file(store: ObjectStore, digest: str, manifest: Manifest, name: str) -> bytes:
    """A file of the bundle, once its size and digest are those in ``manifest``.

    Raises NotFound where the manifest names no such file, and BundleDamaged, with what was expected
    and what was found, where the stored file is missing or differs.
    """
    expected = manifest.files.get(name)
    if expected is None:
        raise NotFound(
            f"bundle {digest} lists no file {name!r}",
            hint=f"it holds {', '.join(sorted(manifest.files))}",
        )
    try:
        content = store.get(_key(digest, name), limit=expected.size)
    except NotFound as error:
        raise _damaged(store, digest, name, "expected a file, found none") from error
    except TooLarge as error:
        raise _damaged(
            store, digest, name, f"expected {expected.size} bytes, found {error.size}"
        ) from error
    if len(content) != expected.size:
        raise _damaged(store, digest, name, f"expected {expected.size} bytes, found {len(content)}")
    found = digest_of(content)
    if found != expected.digest:
        raise _damaged(store, digest, name, f"expected {expected.digest}, found {found}")
    return content


def verify_bundle(store: ObjectStore, digest: str) -> Manifest:
    """Reads and checks the manifest and every file; one file is in memory at a time."""
    manifest = read_manifest(store, digest)
    for name in sorted(manifest.files):
        read_file(store, digest, manifest, name)
    return manifest


def remove_bundle(store: RemovableStore, digest: str) -> None:
    """Removes a bundle: its manifest first, so that a part of it that is left is no bundle."""
    manifest = _key(digest, MANIFEST_NAME)
    store.remove(manifest)
    for key in list(store.list(manifest.rpartition("/")[0])):
        store.remove(key)


def list_bundles(store: ObjectStore) -> Iterator[str]:
    """The digest of every bundle that has a manifest, in no order; contents are not checked."""
    for key in store.list(_FOLDER):
        if matched := _MANIFEST_KEY.fullmatch(key):
            yield f"sha256:{matched[1]}"


def _check_before_writing(manifest: Manifest, raw: bytes, files: Mapping[str, bytes]) -> None:
    if MANIFEST_NAME in manifest.files:
        raise ModelwireError(f"a manifest cannot list {MANIFEST_NAME}, which is itself")
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ModelwireError(
            f"the manifest has {len(raw):,} bytes, more than the {MAX_MANIFEST_BYTES:,} that readers"
            " accept"
        )
    # Structs made in Python skip the checks of names, digests and sizes; decoding makes them.
    decode_manifest(raw)
    if unlisted := sorted(set(files) - set(manifest.files)):
        raise ModelwireError(f"the manifest does not list {', '.join(unlisted)}")
    if missing := sorted(set(manifest.files) - set(files)):
        raise ModelwireError(f"the manifest lists {', '.join(missing)}, but no content was given")
    for name, content in files.items():
        stated = manifest.files[name]
        found = digest_of(content)
        if (stated.digest, stated.size) != (found, len(content)):
            raise ModelwireError(
                f"{name} does not match the manifest: it states {stated.digest} of {stated.size}"
                f" bytes, the content is {found} of {len(content)} bytes"
            )


def _put(store: ObjectStore, digest: str, key: str, content: bytes) -> None:
    if store.put_if_absent(key, content):
        return
    try:
        same = store.get(key, limit=len(content)) == content
    except TooLarge:
        same = False
    if not same:
        raise Conflict(
            f"{key} in {store.url} already holds other bytes, so bundle {digest} is not written",
            hint="somebody else wrote there; remove that object, or use another store",
        )


def _key(digest: str, name: str) -> str:
    matched = _DIGEST.fullmatch(digest)
    if matched is None:
        raise UsageProblem(
            f"{digest[:100]!r} is not a bundle's digest",
            hint="a digest is sha256: and 64 hexadecimal digits",
        )
    key = f"{_FOLDER}/{matched[1]}/{name}"
    if problem := problem_of_key(key):
        raise ModelwireError(f"bundle {digest} cannot hold a file named {name!r}: {problem}")
    return key


def _damaged(store: ObjectStore, digest: str, name: str, found: str) -> BundleDamaged:
    return BundleDamaged(
        f"bundle {digest} in {store.url} is damaged: {name}: {found}",
        hint="publish the bundle again into a store that nothing else writes to",
    )
