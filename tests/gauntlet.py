"""A process that stands for a consumer: it holds a champion, and is asked to admit what must not serve.

    python -m tests.gauntlet hostile|damaged|flipped --count N --seed N [--store URL --digest D]

After each bundle the champion still has to repeat its golden vectors. The last line is one JSON object.
The process is lost where it does not come to that line, and then so would be the consumer.
"""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import click

from adapters.bundles import StoredBundles, read_file, read_manifest
from adapters.object_store import open_store
from consumer.admission import Admission, Limits
from consumer.rungs import NotAdmitted
from schemas.manifest import GOLDEN_NAME, MODEL_NAME, Manifest, decode_golden
from scoring.golden import check_golden
from tests.bundles import make_bundle
from tests.hostile import Files, Made, flipped, hostile, sealed

MODEL = "m"
VET_SECONDS = 3.0
"""A good model takes 0.3 s; every one that hangs takes all of it."""


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
    limits = Limits(seconds=10.0, batch_size=64, vet_seconds=VET_SECONDS)
    ladder = Admission(StoredBundles(store), manifest.model, limits)
    good = sealed("good", manifest, {name: files[name] for name in (MODEL_NAME, GOLDEN_NAME)})
    champion = ladder.admit(1, good.store(store), lambda: True).version
    shutil.rmtree(folder / good.folder)  # a turned one may have its digest
    vectors = decode_golden(files[GOLDEN_NAME])
    rungs: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    for version, made in enumerate(bundles, start=2):
        try:
            ladder.admit(version, made.store(store), lambda: True)
            end = "served"
        except NotAdmitted as fallen:
            end = fallen.rung.value
        rungs[end] += 1
        kinds.setdefault(made.kind, Counter())[end] += 1
        problem = check_golden(champion, vectors, manifest.tolerance)
        assert problem is None, f"after {made.kind}: {problem}"
        shutil.rmtree(folder / made.folder)
    return {"tried": rungs.total(), "served": rungs["served"], "rungs": rungs, "kinds": kinds}


if __name__ == "__main__":
    main()
