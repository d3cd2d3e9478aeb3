"""A cache of bundles in a folder of this machine, shared by all the instances that run on it.

    <folder>/<64 hex digits>          a manifest or a file of a bundle, named by its own SHA-256
    <folder>/<64 hex digits>.draft    the same before it is whole; who holds its lock is fetching it

Rules:

1. Nothing is believed because of where it lay. What is read must hash to its name; what does not is
   dropped, said in a log line, and fetched again.
2. A file gets its name by a rename, once all of it is written. Nothing is synced: after a power cut
   rule 1 finds what is damaged.
3. One process of a machine fetches a file, the others wait for it. The lock ends with its holder, and
   the wait has a limit, after which one goes on as if there were no cache: a holder that is stopped
   or slow costs the others that wait once.
4. The cache never holds more than its limit and the file in hand. What was not used for longest goes
   first. Nobody is asked: who reads a file that another process removes still reads all of it. A
   file over the limit is not kept.
5. A cache that fails (no right to write, a full disk, a file where the folder should be) costs one
   warning. Bundles are then fetched as if there were none, and each fetch tries it anew.
6. A store that cannot be asked is not noticed while all that is read is kept here. ``look_at_store`` asks
   it once, where no read has, and one warning says what that means.
7. A killed writer leaves a draft that nobody has locked. The next file that is kept removes it.

Only files named as above are touched. What is refused, and why, is as in ``adapters.bundles``, which
does the fetching; what is kept is served where the store is away.
"""

import fcntl
import os
import random
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import structlog

from adapters.bundles import (
    Bundles,
    StoredBundles,
    is_stored,
    manifest_in,
    read_file,
    read_manifest_bytes,
)
from adapters.object_store import ObjectStore, open_store
from adapters.settings import Settings
from adapters.timed_reads import reading_by
from schemas.errors import ModelwireError
from schemas.manifest import Manifest, digest_of

WAIT_SECONDS = 10.0
"""How long another process's fetch of a file is waited for. More than the store takes to find out that
its server hangs, and a sixth of what the admission of one version may take."""

POLL_SECONDS = 0.02

LOOK_SECONDS = 2.0
"""How long the store may take to say whether it is there."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_KEPT = re.compile(r"[0-9a-f]{64}")
_DRAFT = re.compile(r"[0-9a-f]{64}\.draft")

log = structlog.get_logger()


def open_bundles(settings: Settings) -> Bundles:
    """The bundles of the settings' store, through the cache that the settings ask for.

    Raises UsageProblem where the store's address or its settings make no sense; nobody is asked yet.
    """
    store = open_store(settings.store_url, settings.s3_settings)
    megabytes = settings.consumer.cache_megabytes
    if megabytes == 0:
        return StoredBundles(store)
    folder = settings.cache_folder
    return BundleCache(store, folder.absolute(), megabytes * 2**20)


class BundleCache:
    """The bundles of ``store``, kept in ``folder`` up to ``limit_bytes``. Safe to use from threads.

    ``wait_seconds`` limits the wait of rule 3.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        limit_bytes: int,
        *,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._store = store
        self._folder = folder
        self._limit = limit_bytes
        self._wait_seconds = wait_seconds
        self._not_awaited: set[str] = set()
        """Names whose fetch elsewhere took longer than the wait."""
        self._warned = False
        self._read_last: str | None = None
        """The digest of the bundle that was read last."""
        self._is_asked = False
        """Whether the store was asked for anything."""

    def read_manifest(self, digest: str) -> Manifest:
        """As ``adapters.bundles.read_manifest``."""

        def fetch() -> bytes:
            self._is_asked = True
            return read_manifest_bytes(self._store, digest)

        raw = self._read(digest, fetch)
        self._read_last = digest
        return manifest_in(self._store, digest, raw)

    def read_file(self, digest: str, manifest: Manifest, name: str) -> bytes:
        """As ``adapters.bundles.read_file``."""

        def fetch() -> bytes:
            self._is_asked = True
            return read_file(self._store, digest, manifest, name)

        stated = manifest.files.get(name)
        if stated is None or stated.size > self._limit:
            return fetch()
        content = self._read(stated.digest, fetch)
        # A manifest may state a size that its digest does not have: the store's words for that.
        return content if len(content) == stated.size else fetch()

    def look_at_store(self) -> None:
        """Rule 6: nothing where nothing was read yet, or the store was asked."""
        if self._is_asked or self._read_last is None:
            return
        self._is_asked = True
        try:
            with reading_by(time.monotonic() + LOOK_SECONDS):
                is_stored(self._store, self._read_last)
        except ModelwireError as error:
            log.warning(
                "store.unreachable",
                store=self._store.url,
                problem=error.message,
                meaning="versions in the cache are served; any other cannot be loaded",
            )

    def _read(self, digest: str, fetch: Callable[[], bytes]) -> bytes:
        """The content of this digest, which ``fetch`` gives where the cache does not."""
        matched = _DIGEST.fullmatch(digest)
        if matched is None:
            return fetch()
        name = matched[1]
        kept = self._kept(name)
        if kept is not None:
            return kept
        draft = self._draft(name)
        if draft is None:
            return fetch()
        with draft:
            kept = self._kept(name)  # fetched by another while this one waited
            if kept is None:
                kept = fetch()
                self._keep(draft, kept)
            return kept

    def _kept(self, name: str) -> bytes | None:
        path = self._folder / name
        content = None
        with self._forgiven():
            content = _content_of(path, self._limit)
        if content is None or digest_of(content) == f"sha256:{name}":
            return content
        log.warning("cache.damaged", file=str(path), bytes=len(content))
        with self._forgiven():
            path.unlink(missing_ok=True)
        return None

    def _draft(self, name: str) -> "_Draft | None":
        """The right to fetch this file; None where another has it for too long, or nobody can."""
        path = self._folder / f"{name}.draft"
        wait = 0.0 if name in self._not_awaited else self._wait_seconds
        deadline = time.monotonic() + wait
        locked = None
        with self._forgiven():
            self._folder.mkdir(parents=True, exist_ok=True)
            while (locked := _lock(path)) is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))
            if locked is not None:
                return _Draft(path, locked)
            if wait:
                log.info("cache.not_awaited", file=str(path), seconds=wait)
            self._not_awaited.add(name)
        return None

    def _keep(self, draft: "_Draft", content: bytes) -> None:
        if len(content) > self._limit:
            return
        with self._forgiven():
            draft.write(content)
            self._make_room()
            draft.publish()

    def _make_room(self) -> None:
        """Remove stray drafts, and what was used longest ago, until the rest and the drafts fit."""
        kept: list[tuple[int, int, str]] = []
        total = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _KEPT.fullmatch(entry.name):
                        kept.append((status.st_mtime_ns, status.st_size, entry.path))
                    elif not _DRAFT.fullmatch(entry.name) or _remove_stray(Path(entry.path)):
                        continue
                    total += status.st_size
        for _, size, path in sorted(kept):
            if total <= self._limit:
                return
            Path(path).unlink(missing_ok=True)
            total -= size

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        """What the folder refuses in this block is said once, and then done without."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "cache.unusable",
                    folder=str(self._folder),
                    problem=error.strerror or str(error),
                    meaning="bundles are fetched from the store each time",
                )


class _Draft:
    """A draft that this process has locked; without ``publish`` nothing of it stays."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._published = False

    def write(self, content: bytes) -> None:
        """Make this all of the draft."""
        os.ftruncate(self._descriptor, 0)  # a killed writer's bytes
        with open(self._descriptor, "wb", closefd=False) as opened:
            opened.write(content)

    def publish(self) -> None:
        """Give the draft its name."""
        self._path.rename(self._path.with_suffix(""))
        self._published = True

    def __enter__(self) -> None:
        """Nothing: it was locked when it was made."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._published:  # a draft of this name may be another's by now
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _lock(path: Path) -> int | None:
    """The descriptor of this draft, locked until it is closed; None while another holds it.

    Only who holds a draft's lock renames or removes it. So once the lock is had, and the path still
    leads to what was locked, nobody else does.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _remove_stray(path: Path) -> bool:
    """Whether this draft was one that nobody had locked; it is gone then."""
    locked = _lock(path)
    if locked is None:
        return False
    path.unlink(missing_ok=True)
    os.close(locked)
    return True


def _content_of(path: Path, limit: int) -> bytes | None:
    """All of a file, which counts as used now; None where there is none of at most ``limit`` bytes."""
    try:
        # Non-blocking, so that a pipe put in a file's place cannot hang a reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        with suppress(OSError):
            os.utime(descriptor)
        return opened.read(status.st_size)
