"""The jars of the local servers: exactly those in the lock files, byte for byte.

1. The lock names every jar and its sha256; nothing is resolved on a user's machine.
2. A jar is downloaded into a staging folder, checked, and only then moved into the cache. A break
   at any moment leaves whole jars or none.
3. Every start of a server reads and checks all its jars (0.05 s for 66 MB). A jar with
   other bytes is named with the command that mends it, and is never replaced silently.

The lock files are made by `infra/local/lock_jars.py`.
"""

import contextlib
import fcntl
import hashlib
import shlex
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from adapters.settings import Settings
from modelwire.localstack.runtime import INSTALL_HINT
from schemas.errors import ModelwireError

SERVERS = Path(__file__).parent / "servers"
# Four at a time take Maven Central's latency out without looking like abuse.
DOWNLOADS_AT_ONCE = 4
TRIES = 3
CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def path(self) -> PurePosixPath:
        """Where it lies in a Maven repository and in the cache."""
        tail = f"-{self.classifier}" if self.classifier else ""
        folder = PurePosixPath(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}{tail}.jar"


def locked_jars(server: str) -> tuple[Jar, ...]:
    """The jars that the committed lock of `kafka` or `s3` names, in class path order."""
    lock = tomllib.loads((SERVERS / server / "jgo.lock.toml").read_text(encoding="utf-8"))
    return tuple(
        Jar(
            group=entry["groupId"],
            artifact=entry["artifactId"],
            version=entry["version"],
            classifier=entry.get("classifier", ""),
            sha256=entry["sha256"],
        )
        for entry in lock["dependencies"]
    )


def default_folder() -> Path:
    """The cache that all stacks of a user share, so that each jar is downloaded once."""
    return Path.home() / ".cache" / "modelwire" / "jars"


@dataclass(frozen=True, slots=True)
class JarCache:
    """A folder of jars in Maven's layout, and the repository that fills it.

    `folder`: shared by all stacks of a user; about 70 MB. `repository`: the address of a Maven
    repository, Maven Central where empty; any mirror will do, because the lock decides which bytes
    are accepted.
    """

    folder: Path = field(default_factory=default_folder)
    repository: str = ""

    def file(self, jar: Jar) -> Path:
        """Where the jar is, or would be, in this cache."""
        return self.folder / jar.path

    def missing(self, jars: Sequence[Jar]) -> tuple[Jar, ...]:
        """The jars that are not in the cache."""
        return tuple(jar for jar in jars if not self.file(jar).exists())

    def damaged(self, jars: Sequence[Jar]) -> tuple[Jar, ...]:
        """The jars that are in the cache with other bytes than the lock names."""
        present = [jar for jar in jars if self.file(jar).exists()]
        with ThreadPoolExecutor(max_workers=2) as pool:  # hashing releases the interpreter lock
            found = pool.map(_sha256, (self.file(jar) for jar in present))
            return tuple(
                jar for jar, sha256 in zip(present, found, strict=True) if sha256 != jar.sha256
            )

    def class_path(self, jars: Sequence[Jar]) -> str:
        """The class path of these jars, each checked against the lock.

        Raises ModelwireError that names the first damaged jar and the command that mends it.
        """
        damaged = self.damaged(jars)
        if damaged:
            raise damaged_jars(damaged, self)
        # Absolute, since a server runs in a folder of its own.
        return ":".join(str(self.file(jar).absolute()) for jar in jars)

    def fetch(self, jars: Sequence[Jar], on_jar: Callable[[int, int], None]) -> int:
        """Download those of `jars` that are missing; returns how many there were.

        `on_jar(done, total)` is called as jars arrive, first with 0. Raises ModelwireError when the
        repository cannot be reached or has other bytes; the cache then holds whole jars only.
        """
        if not self.missing(jars):
            return 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ModelwireError(
                f"the jar cache {self.folder} cannot be made: {problem.strerror}",
                hint="give the cache another folder: --jar-cache",
            ) from problem
        with _only_one_downloads(self.folder):
            missing = self.missing(jars)  # another process may have fetched them meanwhile
            on_jar(0, len(missing))
            staging = self.folder / ".incoming"
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            try:
                self._fetch_all(missing, staging, on_jar)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return len(missing)

    def _fetch_all(
        self, missing: Sequence[Jar], staging: Path, on_jar: Callable[[int, int], None]
    ) -> None:
        with ThreadPoolExecutor(max_workers=DOWNLOADS_AT_ONCE) as pool:
            waiting = [pool.submit(self._fetch_one, jar, staging) for jar in missing]
            try:
                for done, future in enumerate(as_completed(waiting), start=1):
                    future.result()
                    on_jar(done, len(missing))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _fetch_one(self, jar: Jar, staging: Path) -> None:
        downloaded = _download(jar, staging, self.repository)
        target = self.file(jar)
        target.parent.mkdir(parents=True, exist_ok=True)
        downloaded.replace(target)


def damaged_jars(damaged: Sequence[Jar], cache: JarCache) -> ModelwireError:
    """The error that names damaged jars and says how to mend them."""
    paths = [shlex.quote(str(cache.file(jar))) for jar in damaged]
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return ModelwireError(
        f"the jar {paths[0]}{more} is damaged: its bytes are not those that the lock names",
        hint="remove it, and the next start downloads it again: rm " + " ".join(paths),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _only_one_downloads(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def jar_cache_of(
    settings: Settings, folder: Path | None = None, repository: str | None = None
) -> JarCache:
    """The jar cache that the settings name, flags first."""
    stack = settings.stack
    return JarCache(
        folder or stack.jar_cache or default_folder(), repository or stack.maven_repository
    )


def _download(jar: Jar, staging: Path, repository: str) -> Path:
    """Fetch one jar into the staging folder and check it; tries again, since networks stutter."""
    try:
        import requests
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext, PythonResolver
    except ModuleNotFoundError as problem:
        raise ModelwireError("no way to fetch jars: jgo is missing", hint=INSTALL_HINT) from problem
    repository = repository or MAVEN_CENTRAL_URL
    context = MavenContext(
        resolver=PythonResolver(),
        repo_cache=staging,
        remote_repos={"locked": repository},
        timeout=CONNECT_SECONDS,
    )
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    artifact = component.artifact(classifier=jar.classifier)
    for attempt in range(1, TRIES + 1):
        (staging / jar.path).unlink(missing_ok=True)
        try:
            context.resolver.download(artifact)
            downloaded = staging / jar.path
            sha256 = _sha256(downloaded)
        except (requests.RequestException, RuntimeError, OSError) as problem:
            failure = _unreachable(jar, repository, problem)
        else:
            if sha256 == jar.sha256:
                return downloaded
            failure = _other_bytes(jar, repository, sha256)
        if attempt < TRIES:
            time.sleep(0.5 * attempt)
    raise failure


def _unreachable(jar: Jar, repository: str, problem: Exception) -> ModelwireError:
    # jgo says RuntimeError, and nothing more special, when no repository has the artefact.
    reason = "not found there" if type(problem) is RuntimeError else type(problem).__name__
    return ModelwireError(
        f"cannot download {jar.path.name} from {repository}: {reason}",
        hint="connect to the network (HTTPS_PROXY is honoured) or name a mirror with "
        "--maven-repository, then run the command again; once the jars are in the cache, "
        "no network is needed",
    )


def _other_bytes(jar: Jar, repository: str, sha256: str) -> ModelwireError:
    return ModelwireError(
        f"{repository} has other bytes for {jar.path.name} than the lock names: "
        f"sha256 {sha256[:16]}…, not {jar.sha256[:16]}…",
        hint="something between here and there changes files; name another repository with "
        "--maven-repository",
    )
