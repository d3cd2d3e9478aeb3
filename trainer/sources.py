"""Sources: the files that a dataset names, brought to this machine, digested and checked.

Rules:

1. A source is a file, a glob (sorted by name; ``**`` for any folders), or a list of them; ``s3://``
   ones are copied into a temporary folder that lives as long as ``open_sources``.
2. Each file is read once from end to end, a block at a time, for its SHA-256 and its size. Who has
   read its content afterwards asks ``Sources.check_unchanged``, so that what was digested is what
   was trained on.
3. A file that DVC pins (``trainer.pins``) must be what is pinned. Where its folder is pinned, that folder
   must be, and all of its files are read. For objects no pin is looked for: DVC keeps its pins in the
   repository, never in the bucket.
"""

import glob
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from adapters.object_store import S3Settings
from schemas.errors import ModelwireError, NotFound, UsageProblem
from trainer.dataset import DatasetFile
from trainer.pins import Pin, Pins, folder_md5

if TYPE_CHECKING:
    from adapters.s3_files import S3Files

_BLOCK_BYTES = 1024 * 1024
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class SourceFile:
    """A file on this machine that holds (a part of) a source.

    ``name`` is what the lineage calls it: the path below the dataset's folder, or the address of an
    object; of a file elsewhere the bare name, with as many folders before it as tell it from the other
    sources. ``shown`` is what messages call it. ``state`` is what the file system said of it when it was
    digested. ``md5`` is known where there is a pin.
    """

    name: str
    shown: str
    path: Path
    digest: str
    size: int
    state: tuple[int, int, int]
    pin: Pin | None = None
    md5: str = ""

    @property
    def pin_name(self) -> str:
        """What the lineage calls the file with the pin, named as the source is; empty without one."""
        if self.pin is None:
            return ""
        way = os.path.relpath(self.pin.file, os.path.abspath(self.path.parent))
        return Path(os.path.normpath(Path(self.name).parent / way)).as_posix()

    def called(self, name: str) -> Self:
        """The same file, and its pin, by another name."""
        return replace(self, name=name)


Files = tuple[SourceFile, ...]


def distinct_names(paths: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """A name for each path: its last part, and before it as many folders as tell it from the others."""
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        many = Counter([*names, *taken])
        names = [
            "/".join(path.parts[-depth:]).replace("//", "/") if many[name] > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    return names


@dataclass(frozen=True)
class Sources:
    """The files of a dataset, by what they are for. ``attributes`` has an entry for each table."""

    panel: Files
    attributes: tuple[Files, ...] = ()
    holidays: Files = ()
    traffic: Files = ()

    @property
    def all(self) -> Files:
        """Each file once, in the order in which the dataset names them."""
        files = [*self.panel, *(file for part in self.attributes for file in part)]
        return tuple(dict.fromkeys([*files, *self.holidays, *self.traffic]))

    def told_apart(self, root: Path) -> Self:
        """The same, each file with a name of its own: two outside of ``root`` may be called alike."""
        outside = [each.path for each in self.all if _is_outside(each, root)]
        inside = {each.name for each in self.all if not _is_outside(each, root)}
        names = dict(zip(outside, distinct_names(outside, inside), strict=True))

        def renamed(files: Files) -> Files:
            return tuple(each.called(names.get(each.path, each.name)) for each in files)

        return replace(
            self,
            panel=renamed(self.panel),
            attributes=tuple(renamed(part) for part in self.attributes),
            holidays=renamed(self.holidays),
            traffic=renamed(self.traffic),
        )

    def check_unchanged(self) -> None:
        """Raises ModelwireError where a file is no longer what was digested."""
        for file in self.all:
            if _state(file.path) != file.state:
                raise ModelwireError(
                    f"{file.shown} changed while it was read", hint="train again when it rests"
                )


@contextmanager
def open_sources(file: DatasetFile, s3: S3Settings | None = None) -> Iterator[Sources]:
    """The sources of a dataset; those from a bucket exist until the block ends.

    Raises NotFound where a source does not exist, ModelwireError where it is not what its pin says.
    """
    dataset = file.dataset
    with ExitStack() as stack:
        finder = _Finder(file, s3 or S3Settings(), stack)
        found = Sources(
            panel=finder.files(dataset.source, "source"),
            attributes=tuple(
                finder.files(each.source, "attributes", str(position), "source")
                for position, each in enumerate(dataset.attributes)
                if each.source is not None
            ),
            holidays=(
                finder.files(dataset.holidays.source, "holidays", "source")
                if dataset.holidays
                else ()
            ),
            traffic=(
                finder.files(dataset.traffic.source, "traffic", "source") if dataset.traffic else ()
            ),
        )
        _check_folders(found)
        yield found.told_apart(file.root)


class _Finder:
    """Finds and digests files, each once."""

    def __init__(self, file: DatasetFile, s3: S3Settings, stack: ExitStack) -> None:
        self._file = file
        self._s3 = s3
        self._stack = stack
        self._found: dict[str, SourceFile] = {}
        self._pins = Pins()

    def files(self, where: tuple[str, ...], *setting: str) -> Files:
        """The files of a source, which the key ``setting`` of the dataset names."""
        found = [
            each
            for one in where
            for each in (
                self._objects(one, setting)
                if one.startswith("s3://")
                else self._local_files(one, setting)
            )
        ]
        return tuple(dict.fromkeys(found))

    def _local_files(self, pattern: str, setting: tuple[str, ...]) -> list[SourceFile]:
        root = self._file.root
        whole = root / pattern
        try:
            paths = files_at(root, pattern)
        except (OSError, ValueError) as error:  # no path at all, or no right to look
            raise UsageProblem(
                f"{self._file.where(*setting)} names {str(whole)[:200]!r}, which cannot be looked for: "
                f"{error.strerror if isinstance(error, OSError) else error}",
                hint="name a file, and check its folder's rights",
            ) from error
        if whole.is_dir():
            raise UsageProblem(
                f"{self._file.where(*setting)} names {whole}, which is a folder",
                hint=f'name the files in it, such as "{pattern.rstrip("/")}/*.parquet"',
            )
        if not paths:
            raise self._missing(str(whole), pattern, setting)
        return [self._local_file(path) for path in paths]

    def _local_file(self, path: Path) -> SourceFile:
        if (shown := str(path)) not in self._found:
            inside = path.is_relative_to(self._file.root)
            name = path.relative_to(self._file.root).as_posix() if inside else path.name
            self._found[shown] = _digested(name, shown, path, pin=self._pins.of(path))
        return self._found[shown]

    def _objects(self, address: str, setting: tuple[str, ...]) -> list[SourceFile]:
        bucket, _, pattern = address.removeprefix("s3://").partition("/")
        if not bucket or not pattern:
            raise UsageProblem(
                f"{self._file.where(*setting)} names {address}, which has no key",
                hint="write s3://bucket/key, where the key may be a glob",
            )
        store = self._bucket(bucket)
        keys = [pattern]
        wild = _WILD.search(pattern)
        if wild:
            fits = _pattern_of(pattern)
            keys = sorted(key for key in store.keys(pattern[: wild.start()]) if fits.fullmatch(key))
        if not keys:
            raise self._missing(address, pattern, setting)
        return [self._object(store, bucket, key) for key in keys]

    def _object(self, store: "S3Files", bucket: str, key: str) -> SourceFile:
        if (shown := f"s3://{bucket}/{key}") not in self._found:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="modelwire-"))
            path = Path(folder) / (key.rpartition("/")[2] or "object")
            store.download(key, path)
            self._found[shown] = _digested(shown, shown, path, pin=None)
        return self._found[shown]

    def _bucket(self, bucket: str) -> "S3Files":
        # Imported here: boto3 takes a quarter of a second, and most sources are files.
        from adapters.s3_files import S3Files

        return S3Files(bucket, "", self._s3)

    def _missing(self, shown: str, pattern: str, setting: tuple[str, ...]) -> NotFound:
        what = "matches no file" if _WILD.search(pattern) else "does not exist"
        return NotFound(
            f"{self._file.where(*setting)} names {shown}, which {what}",
            hint=f"paths are relative to {self._file.root}; `--data DIR` names another folder",
        )


def files_at(root: Path, pattern: str) -> list[Path]:
    """The file of this name below a folder, or those that fit it as a glob; the folder is never one.

    Raises OSError, and ValueError for a NUL.
    """
    if (root / pattern).exists():
        return [root / pattern]
    under = "" if Path(pattern).is_absolute() else f"{glob.escape(str(root))}/"
    found = sorted(Path(path) for path in glob.glob(f"{under}{pattern}", recursive=True))
    return [path for path in found if path.is_file()]


def _digested(name: str, shown: str, path: Path, *, pin: Pin | None) -> SourceFile:
    """The file with its digest. Raises ModelwireError where its pin says something else."""
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False)
    size = 0
    try:
        state = _state(path)
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                sha256.update(block)
                size += len(block)
                if pin:
                    md5.update(block)
    except OSError as error:
        raise ModelwireError(f"{shown} cannot be read: {error}") from error
    if pin and not pin.is_folder and md5.hexdigest() != pin.md5:
        raise pin.mismatch(shown, f"its MD5 is {md5.hexdigest()} ({size:,} bytes)")
    digest = f"sha256:{sha256.hexdigest()}"
    return SourceFile(name, shown, path, digest, size, state, pin, md5.hexdigest() if pin else "")


def _check_folders(sources: Sources) -> None:
    """Raises ModelwireError where a pinned folder that holds a source is not what is pinned."""
    known = {Path(os.path.abspath(each.path)): each.md5 for each in sources.all if each.md5}
    for pin in dict.fromkeys(each.pin for each in sources.all):
        if pin is not None and pin.is_folder:
            md5, count = folder_md5(pin.target, known)
            if md5 != pin.md5:
                raise pin.mismatch(str(pin.target), f"its {count:,} files have the MD5 {md5}")


def _is_outside(file: SourceFile, root: Path) -> bool:
    return "://" not in file.name and not file.path.is_relative_to(root)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelwireError(f"{path} cannot be read: {error}") from error
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _pattern_of(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression: ``*`` and ``?`` stay within a folder, ``**/`` is any folders."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return re.compile(
        "".join(
            parts.get(piece)
            or (piece if _WILD.match(piece) and len(piece) > 2 else re.escape(piece))
            for piece in pieces
        )
    )
