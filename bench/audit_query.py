"""Measures what is asked of answers: looking one up among millions, and counting all of them.

Answer files are generated (``--answers``), of the size that the sink makes where a file is full, in a
folder and on an S3 server of this machine. Then the real command is run, each time in a new process: it
looks up a request id, one that does not exist, and counts all answers by version. Its wall time has
Python's start in it. ``cpu`` is the command's own, without the S3 server, which shares the machine.

All figures are the machine's of this run; ``load`` says what else it did.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import pyarrow as pa

from adapters.answer_files import encode_file
from adapters.answer_rows import columns_of, records_of
from adapters.object_store import open_store
from adapters.settings import Settings, load_settings
from modelwire.localstack.stack import Stack
from schemas.answer_file import ContentHash, FileName, Footer, Kind
from tests.fleet import environment_of

MODEL = "sales"
PARTITIONS = 8
FILE_ANSWERS = 100_000
"""Answers of 64 MiB before they are compressed, where a file is full by its size."""

COMMIT = 2_560
"""Answers of a transaction, after which its marker takes an offset."""

SERIES = 3_200
VERSIONS = 5
FIRST_DAY = date(2026, 11, 1)

_DAY_MS = 86_400_000
_POOL = 20_000
_NO_DIGEST = f"sha256:{'0' * 64}"
_HEX = np.frombuffer(b"0123456789abcdef", dtype="S1").view(np.uint8)


@dataclass(frozen=True)
class Stretch:
    """The answers of one file: so many of a partition from an offset on, on a day."""

    partition: int
    first: int
    rows: int
    day: date
    from_ms: int
    """Of the day, when the first was written."""

    until_ms: int

    @property
    def name(self) -> FileName:
        """Of their file."""
        return FileName(Kind.FORECASTS, MODEL, self.partition, self.first, self.day)

    @property
    def next(self) -> int:
        """Where the file after begins."""
        return self.first + self.rows + -(-self.rows // COMMIT)


def stretches(answers: int, days: int) -> list[Stretch]:
    """So many answers over the partitions and the days, in files of ``FILE_ANSWERS`` at most."""
    found = []
    share = answers // (PARTITIONS * days)
    files = max(-(-share // FILE_ANSWERS), 1)
    for partition in range(PARTITIONS):
        first = 0
        for number in range(days):
            for file in range(files):
                rows = share * (file + 1) // files - share * file // files
                span = _DAY_MS // files
                day = FIRST_DAY + timedelta(days=number)
                each = Stretch(partition, first, rows, day, file * span, (file + 1) * span)
                found.append(each)
                first = each.next
    return found


def answers_of(stretch: Stretch) -> pa.Table:
    """Answers as ``answer_rows.rows_of`` would make them of their records, drawn by where they begin."""
    rng = np.random.default_rng((stretch.partition, stretch.first))
    rows = stretch.rows
    place = np.arange(rows)
    offsets = stretch.first + place + place // COMMIT
    midnight = (stretch.day - date(1970, 1, 1)).days * _DAY_MS
    times = midnight + stretch.from_ms + (stretch.until_ms - stretch.from_ms) * place // rows
    series = rng.integers(0, SERIES // PARTITIONS, rows) * PARTITIONS + stretch.partition
    ahead = rng.integers(0, 16, rows)
    drawn = rng.integers(0, _POOL, rows)
    champion = 1 + (stretch.day - FIRST_DAY).days % VERSIONS
    is_candidate = (series % 10 == 0) & (champion < VERSIONS)
    versions = champion + is_candidate
    sales = np.random.default_rng(7).gamma(0.8, 12.0, _POOL)
    said = pa.array(
        [f'{{"sales":{msgspec.json.encode(value).decode()}}}' for value in sales.tolist()]
    )
    keys = pa.array([_key(number) for number in range(SERIES)])
    asked = pa.array([_inputs(number, day) for number in range(SERIES) for day in range(16)])
    columns = {
        "topic": _same(f"{MODEL}.results", rows),
        "partition": pa.array(np.full(rows, stretch.partition), pa.int32()),
        "offset": pa.array(offsets, pa.int64()),
        "time": pa.array(times, pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
        "key": keys.take(pa.array(series)),
        "request_id": _ids(rng, rows),
        "inputs": asked.take(pa.array(series * 16 + ahead)),
        "outputs": said.take(pa.array(drawn)),
        "model": _same(MODEL, rows),
        "version": pa.array(versions, pa.int32()),
        "digest": _names([f"sha256:{number:064x}" for number in range(VERSIONS + 1)], versions),
        "variant": _names(["champion", "candidate"], is_candidate),
        "revision": pa.array(np.full(rows, champion * 3), pa.int64()),
        "source_topic": _same(f"{MODEL}.requests", rows),
        "source_partition": pa.array(np.full(rows, stretch.partition), pa.int32()),
        "source_offset": pa.array(offsets, pa.int64()),
        "source_time": pa.array(times - 20, pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
        "instance": _same(f"modelwire-{MODEL}-0", rows),
        "runtime": _same("onnxruntime 1.31.0 x86_64-avx512", rows),
        "scored_at": pa.array(times * 1_000 - 5_432, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
    }
    types = columns_of(Kind.FORECASTS)
    table = pa.table(
        {name: columns.get(name, pa.nulls(rows, of)).cast(of) for name, of in types.items()}
    )
    return table.append_column("output_sales", pa.array(sales[drawn]))


def file_of(stretch: Stretch, *, is_checked: bool = False) -> bytes:
    """The answer file. Its digest is that of its records only where ``is_checked``: that takes longer."""
    table = answers_of(stretch)
    content = _NO_DIGEST
    if is_checked:
        digest = ContentHash()
        digest.take(records_of(Kind.FORECASTS, table))
        content = digest.digest
    footer = Footer(
        kind=Kind.FORECASTS,
        model=MODEL,
        topic=f"{MODEL}.results",
        partition=stretch.partition,
        first=stretch.first,
        next=stretch.next,
        rows=stretch.rows,
        content=content,
    )
    return encode_file(footer, [table])


def _key(series: int) -> str:
    return f"store-{series % 40}/item-{series // 40}"


def _inputs(series: int, ahead: int) -> str:
    day = (FIRST_DAY + timedelta(days=ahead)).isoformat()
    return (
        f'{{"store":"store-{series % 40}","item":"item-{series // 40}","date":"{day}",'
        f'"onpromotion":{int(ahead % 7 == 0)},"price":{1.25 + series % 60}}}'
    )


def _same(text: str, rows: int) -> pa.Array:
    return _names([text], np.zeros(rows))


def _names(names: list[str], which: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(which.astype(np.int32)), pa.array(names))


def _ids(rng: np.random.Generator, rows: int) -> pa.Array:
    """Random UUIDs as text."""
    raw = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
    digits = np.empty((rows, 32), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX[raw >> 4], _HEX[raw & 15]
    text = np.full((rows, 36), ord("-"), np.uint8)
    begins = 0
    for start, end in ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36)):
        text[:, start:end] = digits[:, begins : begins + end - start]
        begins += end - start
    ends = pa.py_buffer(np.arange(0, 36 * (rows + 1), 36, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), rows, [None, ends, pa.py_buffer(text.tobytes())])


def generate(settings: Settings, answers: int, days: int) -> int:
    """Store the files where the settings say; gives how many."""
    todo = stretches(answers, days)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(partial(_store, settings.audit_url), todo):
            pass
    return len(todo)


def _store(url: str, stretch: Stretch) -> None:
    assert open_store(url).put_if_absent(stretch.name.key, file_of(stretch))


def upload(folder: Path, settings: Settings) -> None:
    """Put a folder's files into the bucket."""
    store = open_store(settings.audit_url, settings.s3_settings)

    def put(path: Path) -> None:
        assert store.put_if_absent(path.relative_to(folder).as_posix(), path.read_bytes())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, (folder / "audit").rglob("*.parquet")))


def measure(settings: Settings, wanted: str, runs: int) -> dict[str, Any]:
    """Seconds of each question."""
    questions = {
        "look_up": ["--named", "find", "--param", f"id={wanted}"],
        "look_up_absent": ["--named", "find", "--param", "id=nobody-asked-this"],
        "by_version": ["--named", "by-version"],
    }
    return {name: _timed(settings, line, runs) for name, line in questions.items()}


def _timed(settings: Settings, line: list[str], runs: int) -> dict[str, Any]:
    walls, cpus = [], []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "modelwire", *_QUERY, *line, "-o", "json"],
            env=environment_of(settings),
            capture_output=True,
            check=True,
        )
        walls.append(time.monotonic() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        rows = len(json.loads(done.stdout)["rows"])
    return {
        "wall": round(statistics.median(walls), 2),
        "fastest": round(min(walls), 2),
        "cpu": round(statistics.median(cpus), 2),
        "rows": rows,
    }


_QUERY = ("audit", "query", "--model", MODEL)


@contextmanager
def _bucket(folder: Path) -> Iterator[Settings]:
    try:
        info = Stack.up(folder, quiet=True)
        yield load_settings(state_dir=info.state_dir)
    finally:
        Stack.down(folder)


@click.command()
@click.option("--answers", default=20_000_000, show_default=True)
@click.option("--days", default=7, show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; it is removed.")
def main(answers: int, days: int, runs: int, folder: Path | None) -> None:
    """Generate, ask, and print one JSON object."""
    work = Path(tempfile.mkdtemp(prefix="bench-audit-", dir=folder))
    try:
        store = work / "store"
        settings = load_settings(state_dir=work / "state", store_url=store.as_uri())
        began = time.monotonic()
        files = generate(settings, answers, days)
        found: dict[str, Any] = {
            "answers": answers,
            "files": files,
            "megabytes": round(sum(p.stat().st_size for p in store.rglob("*.parquet")) / 2**20),
            "generate_seconds": round(time.monotonic() - began),
        }
        wanted = answers_of(stretches(answers, days)[files // 2])["request_id"][-1].as_py()
        found["file"] = measure(settings, wanted, runs)
        with _bucket(work / "state") as bucket:
            upload(store, bucket)
            found["s3"] = measure(bucket, wanted, runs)
        found["load"] = round(os.getloadavg()[0], 1)
        click.echo(json.dumps(found, indent=2))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
