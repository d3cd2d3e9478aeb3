"""The process that runs suspect rows, and may die of them. ``probe`` starts it.

    python -m consumer.probe_child <job> <said> <parent>

``job`` holds a ``Job`` as one line of JSON, then the bytes of the manifest, of the model, and of each
row's inputs. It says ``r`` when the model is loaded. Then it runs the rows: all at once, or one after the
other with an ``o`` after each; and ``d`` when it is done. Whoever listens knows from the last byte which
row it did not survive.
"""

import contextlib
import os
import sys

import msgspec
import psutil

from adapters.onnx_model import load_vetted
from consumer.confinement import ALLOCATION_FAILED, confine, has_job, settle
from schemas.manifest import decode_manifest
from schemas.rejection import Rejected
from scoring.snapshot import LoadedVersion, load

READY, OVER, DONE = b"r", b"o", b"d"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. Sizes are in bytes; ``one_by_one``: each row alone.

    ``address_bytes`` is the most address space, ``room_bytes`` how much memory there is to take.
    """

    digest: str
    address_bytes: int
    room_bytes: int
    cpu_seconds: int
    manifest: int
    model: int
    rows: tuple[int, ...]
    one_by_one: bool


def main(job_file: int, said: int, parent: int) -> None:
    """Wait for the job, and do it."""
    settle(parent)
    if has_job():
        _run(job_file, said)
    os._exit(0)


def _run(job_file: int, said: int) -> None:
    with open(job_file, "rb", closefd=True) as file:
        file.seek(0)
        job = msgspec.json.decode(file.readline(), type=Job)
        manifest = decode_manifest(file.read(job.manifest))
        content = file.read(job.model)
        rows = [file.read(size) for size in job.rows]
    most = min(job.address_bytes, _addresses() + job.room_bytes)
    confine(address_bytes=most, cpu_seconds=job.cpu_seconds)
    version = load(1, job.digest, manifest.contract, load_vetted(content))
    os.write(said, READY)
    if job.one_by_one:
        for row in rows:
            _score(version, [row])
            os.write(said, OVER)
    else:
        _score(version, rows)
    os.write(said, DONE)


def _score(version: LoadedVersion, rows: list[bytes]) -> None:
    """As ``scoring.batch`` does; what the contract does not take never reaches the model there either."""
    taken = []
    for row in rows:
        try:
            taken.append(version.decode(row))
        except Rejected:
            continue
    if not taken:
        return
    try:
        version.model.run(version.gather(taken), version.output_tensors)
    except Exception as error:
        if isinstance(error, MemoryError) or any(w in str(error) for w in ALLOCATION_FAILED):
            raise  # there is more memory for it in the consumer, up to its end
        # The model failed and lives. The loop looks for the rows at fault, and so meets fewer at once.
        if len(rows) > 1:
            half = len(rows) // 2
            _score(version, rows[:half])
            _score(version, rows[half:])


def _addresses() -> int:
    """Bytes of address space that this process has; 0 where the system does not say."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process().memory_info().vms)
    return 0


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
