"""``modelwire reproduce``: makes a bundle's model again, and says what differs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters.output import TABLE, as_text, output_option
from trainer.options import memory_option

if TYPE_CHECKING:
    from trainer.reproduction import Change, Reproduction

DIFFERENT = 1


@click.command()
@click.argument("bundle", metavar="MODEL:VERSION|DIGEST")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the dataset's sources.  [default: the current one, or the datasets shipped]",
)
@memory_option
@click.option("--store", metavar="URI", help="Store of the bundle (file:///folder, s3://bucket).")
@output_option
@click.pass_context
def reproduce(
    context: click.Context,
    bundle: str,
    data: Path | None,
    memory_mb: int,
    store: str | None,
    output: str,
) -> None:
    """Train a bundle again from its lineage, and compare model.onnx byte for byte.

    A version is looked up in its model's control log; a digest, or six or more of its digits, needs no
    Kafka. Nothing is stored. Exits with 1 where the bytes differ; what differs in data, code, packages,
    Python and the kind of processor is listed either way.
    """
    # Imported here: `modelwire --help` must not wait for scikit-learn.
    from adapters.naming import find_version_or_bundle
    from adapters.object_store import open_store
    from adapters.settings import load_settings
    from trainer.cli import progress_on_stderr
    from trainer.reproduction import reproduce as make_again

    settings = load_settings(store_url=store)
    opened = open_store(settings.store_url, settings.s3_settings)
    digest = find_version_or_bundle(settings, opened, bundle)
    with progress_on_stderr() as say:
        found = make_again(
            opened, digest, data=data, memory_mb=memory_mb, s3=settings.s3_settings, progress=say
        )
    click.echo(_table(found) if output == TABLE else as_text(output, _report(found)))
    if not found.is_same:
        context.exit(DIFFERENT)


def _report(found: "Reproduction") -> dict[str, object]:
    lineage = found.manifest.lineage
    return {
        "model": found.manifest.model,
        "digest": found.digest,
        "parent": lineage.parent or None if lineage else None,
        "same": found.is_same,
        "model_onnx": {"had": found.wanted, "have": found.found},
        "differences": found.differences,
    }


def _table(found: "Reproduction") -> str:
    """A line for each kind of difference, then the verdict."""
    differences = found.differences
    kinds: dict[str, dict[str, Change]] = {
        "data": differences.data,
        "code": _one("git", differences.code),
        "packages": differences.packages,
        "python": _one("", differences.python),
        "processor": _one("", differences.numeric_class),
    }
    lines = [f"{kind:<11} {_said(changes)}" for kind, changes in kinds.items()]
    if found.is_same:
        lines.append(f"model.onnx  the same, byte for byte ({found.found})")
    else:
        lines.append(f"model.onnx  differs: {found.wanted} → {found.found}")
    return "\n".join(lines)


def _one(name: str, change: "Change | None") -> dict[str, "Change"]:
    return {} if change is None else {name: change}


def _said(changes: dict[str, "Change"]) -> str:
    if not changes:
        return "the same"
    said = [
        f"{name}: {each.had or 'none'} → {each.have or 'none'}".removeprefix(": ")
        for name, each in changes.items()
    ]
    return f"\n{'':12}".join(said)
