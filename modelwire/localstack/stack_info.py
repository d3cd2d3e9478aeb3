"""Where the local stack listens: what `stack.json` in the state folder says.

The file is written when the ports are chosen and stays after `down`, because the ports are
remembered. Its form is stable; fields may be added::

    {"format": 1,
     "bootstrap_servers": "127.0.0.1:23456",
     "controller_port": 23457,
     "s3": {"endpoint": "http://127.0.0.1:23458", "access_key": "modelwire", "secret_key": "…",
            "bucket": "modelwire", "region": "us-east-1"},
     "pids": {"kafka": 4711, "s3": 4712}}

`pids` is empty when `down` has stopped the stack. It is a note, not a proof: whether the processes
still live is for `stack` to find out. Paths are not in the file, so that the folder may be moved.

This module imports the standard library and msgspec only, so that reading an address is cheap.
"""

import os
import shlex
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from schemas.errors import ModelwireError

FILE_NAME = "stack.json"
DEFAULT_FOLDER = ".modelwire"
KAFKA = "kafka"
S3 = "s3"


@dataclass(frozen=True, slots=True)
class StackInfo:
    """The addresses, the local secrets and the processes of one stack."""

    state_dir: Path
    bootstrap_servers: str
    controller_port: int
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_bucket: str = "modelwire"
    s3_region: str = "us-east-1"
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def kafka_port(self) -> int:
        """The port that clients of the broker connect to."""
        return int(self.bootstrap_servers.rpartition(":")[2])

    @property
    def s3_port(self) -> int:
        """The port of the S3 server."""
        return int(self.s3_endpoint.rpartition(":")[2])

    @property
    def logs(self) -> dict[str, Path]:
        """The log file of each server: what it wrote since its last start."""
        return {name: log_file(self.state_dir, name) for name in (KAFKA, S3)}


class _S3Address(msgspec.Struct, frozen=True):
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    region: str


class _Document(msgspec.Struct, frozen=True):
    bootstrap_servers: str
    controller_port: int
    s3: _S3Address
    format: int = 1
    pids: dict[str, int] = {}  # msgspec copies an empty default


def log_file(state_dir: Path, server: str) -> Path:
    """The log of one server."""
    return state_dir / "logs" / f"{server}.log"


def command(words: str, state_dir: Path) -> str:
    """A `modelwire` command for this state folder, as one would type it, for messages."""
    if state_dir == Path(DEFAULT_FOLDER).resolve():
        return f"modelwire {words}"
    return f"modelwire {words} --state-dir {shlex.quote(str(state_dir))}"


def read_stack(state_dir: Path) -> StackInfo | None:
    """What the state folder remembers of its stack, or None when it has never had one.

    Raises ModelwireError when the file is there and cannot be read.
    """
    path = Path(state_dir).resolve() / FILE_NAME
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, OSError) as problem:
        raise ModelwireError(
            f"{path} cannot be read: {problem}",
            hint="stop the stack and let it be written anew: "
            f"{command('down', path.parent)}; rm {shlex.quote(str(path))}; "
            f"{command('up', path.parent)}",
        ) from problem
    return StackInfo(
        state_dir=path.parent,
        bootstrap_servers=document.bootstrap_servers,
        controller_port=document.controller_port,
        s3_endpoint=document.s3.endpoint,
        s3_access_key=document.s3.access_key,
        s3_secret_key=document.s3.secret_key,
        s3_bucket=document.s3.bucket,
        s3_region=document.s3.region,
        pids=document.pids,
    )


def write_stack(info: StackInfo) -> None:
    """Write `stack.json` in one step, readable by its owner only: it holds the S3 secret."""
    document = _Document(
        bootstrap_servers=info.bootstrap_servers,
        controller_port=info.controller_port,
        s3=_S3Address(
            endpoint=info.s3_endpoint,
            access_key=info.s3_access_key,
            secret_key=info.s3_secret_key,
            bucket=info.s3_bucket,
            region=info.s3_region,
        ),
        pids=info.pids,
    )
    text = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    descriptor, temporary = tempfile.mkstemp(dir=info.state_dir, prefix=f".{FILE_NAME}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    Path(temporary).replace(info.state_dir / FILE_NAME)
