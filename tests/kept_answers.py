"""Sinks of a model as processes, and what its answer files hold: each position once or the test fails."""

import json
import subprocess
import sys
from typing import Any

from adapters.answer_files import AnswerStore, read_records
from adapters.object_store import open_store
from schemas.answer_file import FileName, Kind
from tests.fleet import Harness, Instance, environment_of
from tests.written_answers import Kept


def store_of(harness: Harness) -> AnswerStore:
    """The model's answer files."""
    settings = harness.settings
    return AnswerStore(open_store(settings.audit_url, settings.s3_settings), harness.model)


def files_of(harness: Harness) -> list[FileName]:
    """All of them."""
    return [name for kind in Kind for name in store_of(harness).names(kind)]


def files_hold(harness: Harness) -> dict[Kind, dict[tuple[int, int], Kept]]:
    """Every record of every file, by partition and offset."""
    store = store_of(harness)
    found: dict[Kind, dict[tuple[int, int], Kept]] = {kind: {} for kind in Kind}
    for name in files_of(harness):
        for record in read_records(store.read(name), name):
            place = (name.partition, record.offset)
            assert place not in found[name.kind], f"{name.key} has {place} again"
            found[name.kind][place] = (record.time_ms, record.key, record.value, record.headers)
    return found


QUICK = {"AUDIT__FILE_SECONDS": "0.3", "AUDIT__FILE_MEGABYTES": "1", "AUDIT__BUFFER_MEGABYTES": "8"}
"""Settings of a sink that stores many small files."""


def start_sink(harness: Harness, *arguments: str, **settings: str) -> Instance:
    """Start a sink; ``settings`` are variables without ``MODELWIRE_``."""
    environment = environment_of(harness.settings)
    environment |= {f"MODELWIRE_{name}": value for name, value in settings.items()}
    sink = Instance(
        ["audit", "sink", "--model", harness.model, *arguments], environment, harness.folder
    )
    harness.commands.append(sink)
    return sink


def run_once(harness: Harness) -> None:
    """Copy all that is there now."""
    harness.run("audit", "sink", "--model", harness.model, "--once")


def checked(harness: Harness, *options: str) -> dict[str, Any]:
    """What ``audit check`` says."""
    command = ["audit", "check", "--model", harness.model, "-o", "json", *options]
    done = subprocess.run(
        [sys.executable, "-m", "modelwire", *command],
        env=environment_of(harness.settings),
        cwd=harness.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["clean"] == (done.returncode == 0) == (not said["findings"]), said
    return said
