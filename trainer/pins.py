"""Pins: what DVC says that the data are, found where DVC writes it.

Rules:

1. A pin is an entry of ``outs`` in a ``.dvc`` file whose path is a source, or a folder that holds it. The
   path is relative to the ``wdir`` of that file, or else to the file's folder.
2. ``.dvc`` files are looked for in the source's folder and in each one above it up to the root of the
   repository, the first that has ``.dvc`` or ``.git``. Outside of a repository, as where a folder was
   copied together with its pin, the last one looked into is that above the source's own. The nearest
   pin counts; DVC lets no two pins share a file.
3. What is called ``sales.csv.dvc`` must be a usable pin of ``sales.csv`` that lies beside it: one that
   cannot be read must not look like one that was checked. A pin of another name speaks of what it lists.
4. The MD5 of a folder is that of a JSON list with path and MD5 of each of its files, sorted by path, and
   ends in ``.dir``.

Outputs of a pipeline (``dvc.lock``) are no pins, and ``.dvcignore`` is not read. Formats:
https://dvc.org/doc/user-guide/project-structure/dvc-files and, of folders,
https://dvc.org/doc/user-guide/project-structure/internal-files
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schemas.errors import ModelwireError

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_ROOT_MARKS = (".dvc", ".git")
_NEVER_PINNED = (".dvc", ".git", ".hg")


@dataclass(frozen=True)
class Pin:
    """What the DVC file ``file`` says of ``target``, a source or a folder that holds it.

    ``md5`` ends in ``.dir`` for a folder. ``is_old`` tells a pin of DVC 2, which digested text with the
    ends of lines of Unix, whatever they were.
    """

    md5: str
    file: Path
    target: Path
    is_old: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether a whole folder is pinned."""
        return self.md5.endswith(".dir")

    def mismatch(self, shown: str, found: str) -> ModelwireError:
        """What to say where ``shown`` is not what is pinned; ``found`` says what it is instead."""
        target = self.target.name
        hint = (
            f"`dvc checkout {target}` brings the pinned data, `dvc add {target}` pins what is there"
        )
        if self.is_old:
            hint += "; DVC 2 wrote this pin, and digested text as if its lines ended as on Unix"
        if self.is_folder and (ignores := _ignores_of(self.target)):
            hint += (
                f"; {ignores} may leave files out, which is not looked at here: pin single files"
            )
        return ModelwireError(
            f"{shown} is not the data that {self.file} pins: {found}, the pin says {self.md5}",
            hint=hint,
        )


class Pins:
    """Finds pins; each ``.dvc`` file is read once."""

    def __init__(self) -> None:
        self._read: dict[Path, list[tuple[Path, Pin]] | None] = {}

    def of(self, source: Path) -> Pin | None:
        """The pin of a file, None where there is none. Raises ModelwireError for an unusable one."""
        path = Path(os.path.abspath(source))
        for folder in _folders(path):
            named = folder / f"{path.relative_to(folder).parts[0]}.dvc"
            files = [named, *(each for each in sorted(folder.glob("*.dvc")) if each != named)]
            for file in files:
                if file.is_file() and (pin := self._pin(file, path, is_named=file == named)):
                    return pin
        return None

    def _pin(self, file: Path, path: Path, *, is_named: bool) -> Pin | None:
        if file not in self._read:
            self._read[file] = _outs(file)
        outs = self._read[file]
        found = next(
            (pin for target, pin in outs or () if path == target or target in path.parents), None
        )
        if found is None:
            beside = file.with_suffix("")
            if is_named and (outs is None or beside == path):
                raise ModelwireError(
                    f"{file} is no pin of {beside.name}: it lists no `outs` with that path and an md5",
                    hint=f"write it again: `dvc add {beside.name}`",
                )
            return None
        if not _MD5.fullmatch(found.md5) or found.is_folder != found.target.is_dir():
            what = "folder" if found.target.is_dir() else "file"
            raise ModelwireError(
                f"{file} pins {found.target.name} by {found.md5!r}, which is no MD5 of a {what}",
                hint=f"write it again: `dvc add {found.target.name}`",
            )
        return found


def folder_md5(folder: Path, known: Mapping[Path, str]) -> tuple[str, int]:
    """The MD5 by which DVC pins a folder, and how many files it has.

    ``known`` are MD5s of files, by absolute path, that need not be read again. Raises ModelwireError
    where one cannot be read.
    """
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NEVER_PINNED]
        for name in names:
            path = Path(root) / name
            md5 = known.get(path) or _md5_of(path)
            files.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
    listed = json.dumps(sorted(files, key=lambda each: each["relpath"]), sort_keys=True)
    return f"{hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest()}.dir", len(files)


def _md5_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(
                stream, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
    except OSError as error:
        raise ModelwireError(f"{path} cannot be read: {error}") from error


def _folders(path: Path) -> Iterator[Path]:
    """Where pins of a file may lie, the nearest first."""
    root = next((each for each in path.parents if _is_root(each)), path.parents[:2][-1])
    for folder in path.parents:
        yield folder
        if folder == root:
            return


def _is_root(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _ROOT_MARKS)


def _outs(file: Path) -> list[tuple[Path, Pin]] | None:
    """What a DVC file pins, by absolute path, or None where it cannot be read as one."""
    try:
        said: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        folder = file.parent / str(said.get("wdir", "."))
        targets = [(Path(os.path.abspath(folder / out["path"])), out) for out in said["outs"]]
        return [
            (target, Pin(str(out["md5"]), file, target, is_old="hash" not in out))
            for target, out in targets
        ]
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None


def _ignores_of(folder: Path) -> str:
    """The nearest ``.dvcignore`` with a pattern that may speak of a folder's files, or nothing."""
    for above in _folders(folder / "any"):
        try:
            lines = (above / ".dvcignore").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        if any(line.strip() and not line.startswith("#") for line in lines):
            return str(above / ".dvcignore")
    return ""
