"""A process that stands for a consumer: it holds a champion, and is asked to admit what must not serve.

    python -m tests.gauntlet hostile|damaged|flipped --count N --seed N [--store URL --digest D]

A turned model that is admitted answers ``ROWS`` random requests, as it would in a consumer: a crash or a
hang may wait for them. After each bundle the champion still has to repeat its golden vectors. The last
line is one JSON object. The process is lost where it does not come to that line, and then so would be the
consumer.
"""

import faulthandler
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import click
import msgspec

from adapters.bundles import StoredBundles, read_file, read_manifest
from adapters.object_store import open_store
from consumer.admission import Admission
from consumer.rungs import NotAdmitted
from deployment.routing import Routing
from schemas.contract import Field, FieldType
from schemas.manifest import GOLDEN_NAME, MODEL_NAME, GoldenVector, Manifest, decode_golden
from scoring.batch import ForecastAnswer, Incoming, answer
from scoring.golden import check_golden
from scoring.snapshot import LoadedVersion, Snapshot
from tests.bundles import make_bundle
from tests.hostile import Files, Made, flipped, hostile, limits_for, problem_of, sealed

MODEL = "m"
ROWS = 200
LARGEST_BATCH = 64
HUNG_SECONDS = 120
"""After which a model that answers is taken to hang: the process says where it is, and ends."""


@click.command()
@click.argument("what", type=click.Choice(["hostile", "damaged", "flipped"]))
@click.option("--count", type=int, required=True)
@click.option("--seed", type=int, default=7)
@click.option("--store", default="", help="Of the bundle to flip; empty: a small one made here.")
@click.option("--digest", default="")
def main(what: str, count: int, seed: int, store: str, digest: str) -> None:
    """Run the gauntlet."""
    manifest, files = _read(store, digest) if store else make_bundle(MODEL, 1.5)
    with tempfile.TemporaryDirectory() as folder:
        report = _run(Path(folder), manifest, files, _bundles(what, count, seed, manifest, files))
    click.echo(json.dumps({"what": what, "seed": seed} | report))


def _read(url: str, digest: str) -> tuple[Manifest, Files]:
    store = open_store(url)
    manifest = read_manifest(store, digest)
    names = (MODEL_NAME, GOLDEN_NAME)
    return manifest, {name: read_file(store, digest, manifest, name) for name in names}


def _bundles(what: str, count: int, seed: int, manifest: Manifest, files: Files) -> Iterator[Made]:
    if what == "hostile":
        yield from hostile(manifest.model, seed, count)
        return
    random = Random(seed)
    for _ in range(count):
        yield flipped(manifest, files, random, to_match=what == "flipped")


def _run(
    folder: Path, manifest: Manifest, files: Files, bundles: Iterator[Made]
) -> dict[str, object]:
    store = open_store(folder.as_uri())
    stored, random = StoredBundles(store), Random(0)
    good = sealed("good", manifest, {name: files[name] for name in (MODEL_NAME, GOLDEN_NAME)})
    ladder = Admission(stored, manifest.model, limits_for(good.kind))
    champion = ladder.admit(1, good.store(store), lambda: True).version
    shutil.rmtree(folder / good.folder)  # a turned one may have its digest
    vectors = decode_golden(files[GOLDEN_NAME])
    rungs: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    answers: Counter[str] = Counter()
    surprises: list[str] = []
    for version, made in enumerate(bundles, start=2):
        ladder = Admission(stored, manifest.model, limits_for(made.kind))
        try:
            admitted = ladder.admit(version, made.store(store), lambda: True)
            end = "served"
            answers += _serve(admitted.version, manifest, vectors, random)
            del admitted
        except NotAdmitted as fallen:
            end = fallen.rung.value
            problem = problem_of(made.kind, fallen)
            if problem is not None:
                surprises.append(problem)
        rungs[end] += 1
        kinds.setdefault(made.kind, Counter())[end] += 1
        problem = check_golden(champion, vectors, manifest.tolerance)
        assert problem is None, f"after {made.kind}: {problem}"
        shutil.rmtree(folder / made.folder)
    return {
        "tried": rungs.total(),
        "served": rungs["served"],
        "rungs": rungs,
        "kinds": kinds,
        "answers": answers,
        "surprises": surprises,
    }


def _serve(
    version: LoadedVersion, manifest: Manifest, vectors: Sequence[GoldenVector], random: Random
) -> Counter[str]:
    """What becomes of ``ROWS`` random requests, in batches of random sizes."""
    routing = Routing(version.version, None, 0, "")
    snapshot = Snapshot(manifest.model, 1, "", routing, version, None)
    ends: Counter[str] = Counter()
    faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
    while ends.total() < ROWS:
        size = random.randint(1, min(LARGEST_BATCH, ROWS - ends.total()))
        batch = [
            Incoming("requests", 0, offset, 0, None, _request(manifest, vectors, random))
            for offset in range(size)
        ]
        when = datetime.now(UTC)
        given = answer(snapshot, batch, scored_at=when, instance="gauntlet", max_answer_bytes=2**20)
        ends.update(
            "forecast" if isinstance(each, ForecastAnswer) else each.rejection.reason.value
            for each in given
        )
    faulthandler.cancel_dump_traceback_later()
    return ends


def _request(manifest: Manifest, vectors: Sequence[GoldenVector], random: Random) -> bytes:
    """Fields of several golden vectors, and numbers that none of them has."""
    inputs = {}
    for field in manifest.contract.fields:
        given = msgspec.json.decode(random.choice(vectors).inputs)
        if field.name in given:
            inputs[field.name] = _value(field, given[field.name], random)
    return msgspec.json.encode({"request_id": f"r-{random.getrandbits(40)}", "inputs": inputs})


def _value(field: Field, given: Any, random: Random) -> Any:
    if random.random() < 0.5 or field.allowed or given is None:
        return given
    low = -1e6 if field.minimum is None else field.minimum
    high = 1e6 if field.maximum is None else field.maximum
    match field.type:
        case FieldType.INT64:
            return random.choice((int(low), int(high), random.randint(int(low), int(high))))
        case FieldType.FLOAT32 | FieldType.FLOAT64:
            return random.choice((0.0, float(low), float(high), random.uniform(low, high)))
        case FieldType.STRING:
            return "".join(random.choices("ab01é ", k=random.randint(1, field.max_length or 8)))
        case _:
            return given


if __name__ == "__main__":
    main()
