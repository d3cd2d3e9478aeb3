"""``modelwire bundle``: makes bundles of models that other tools trained, and copies bundles."""

import math
import time
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters.output import TABLE, as_text, output_option
from schemas.errors import ModelwireError, NotFound, UsageProblem

if TYPE_CHECKING:
    from schemas.manifest import Source
    from trainer.foreign import ForeignBundle


@click.group()
def bundle() -> None:
    """Make a bundle of any ONNX model; copy bundles between stores."""


def _is_tolerance(_: click.Context, __: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is not a number")
    return value


@bundle.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--contract",
    type=click.Path(path_type=Path),
    required=True,
    help="What the model reads and gives (TOML).",
)
@click.option(
    "--golden",
    type=click.Path(path_type=Path),
    required=True,
    help="Raw inputs by field and, to prove the graph, predictions by output (Parquet, CSV).",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=1e-9, max=0.1),
    callback=_is_tolerance,
    default=1e-5,
    show_default=True,
    help="Largest difference from a prediction p, as a share of 1 + |p|.",
)
@click.option(
    "--source",
    "sources",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A file that the model was trained on; name, size and digest are recorded.",
)
@click.option("--licence", default="", help="Licence of the sources, such as CC-BY-4.0.")
@click.option("--attribution", default="", help="Whom the licence of the sources asks to name.")
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    metavar="CARD.md",
    help="Model card.  [default: one that says what is known]",
)
@click.option("--out", metavar="URI", help="Store to write to (file:///folder, s3://bucket).")
@output_option
def create(
    model: Path,
    contract: Path,
    golden: Path,
    tolerance: float,
    sources: tuple[Path, ...],
    licence: str,
    attribution: str,
    card: Path | None,
    out: str | None,
    output: str,
) -> None:
    """Make a releasable bundle of an ONNX model from any tool, and store it.

    The golden data proves that the graph is the trained model; release the bundle with
    `modelwire release publish`.
    """
    started = time.monotonic()
    # Imported here: `modelwire --help` must not wait for onnxruntime.
    from adapters.bundles import check_writable, write_bundle
    from adapters.object_store import open_store
    from adapters.settings import load_settings
    from trainer.contract_file import load_contract_file
    from trainer.foreign import make_bundle, open_foreign
    from trainer.golden_data import read_golden_data
    from trainer.sources import distinct_names

    if (licence or attribution) and not sources:
        raise UsageProblem(
            "--licence and --attribution speak of sources, and no --source was given",
            hint="name the files that the model was trained on: --source FILE",
        )
    written = load_contract_file(contract)
    foreign = open_foreign(_content(model, "model"), written)
    _say_on_stderr(f"reading {golden.name}")
    data = read_golden_data(golden, foreign.contract, written.actuals)
    settings = load_settings(store_url=out)
    store = open_store(settings.store_url, settings.s3_settings)
    # A store that cannot be written is found out now, not after minutes.
    check_writable(store)
    made = make_bundle(
        foreign,
        data,
        tolerance=tolerance,
        created_at=datetime.now(UTC),
        sources=tuple(
            _source(path, name, licence, attribution)
            for path, name in zip(sources, distinct_names(sources), strict=True)
        ),
        card=None if card is None else _card(card),
        progress=_say_on_stderr,
    )
    _say_on_stderr(f"storing the bundle in {store.url}")
    digest = write_bundle(store, made.manifest, made.files)
    report = {
        "model": made.manifest.model,
        "digest": digest,
        "uri": f"{store.url}/bundles/{digest.removeprefix('sha256:')}",
        "seconds": round(time.monotonic() - started, 2),
        "size_bytes": len(foreign.content),
        "rows": made.rows,
        "golden_vectors": len(made.golden.vectors),
        "not_exercised": list(made.golden.unexercised),
        "parity": made.manifest.parity,
        "actuals": None if made.evidence is None else made.evidence.outputs,
    }
    if output == TABLE:
        click.echo(_text(made))
        click.echo(f"digest  {report['digest']}\nuri     {report['uri']}")
    else:
        click.echo(as_text(output, report))


@bundle.command()
@click.argument("digest")
@click.option(
    "--from",
    "source",
    metavar="URI",
    help="Store that has the bundle (file:///folder, s3://bucket).  [default: that of the settings]",
)
@click.option(
    "--to", "target", metavar="URI", help="Store to copy to.  [default: that of the settings]"
)
@output_option
@click.pass_context
def copy(
    context: click.Context, digest: str, source: str | None, target: str | None, output: str
) -> None:
    """Copy a bundle from one store into another.

    Every byte is checked against the bundle's digest; a damaged bundle is refused, and what the other
    store has is never overwritten. Both stores are reached with the same S3 settings. DIGEST is the whole
    digest, or six or more of its digits.
    """
    if source is None and target is None:
        raise click.UsageError("Name the other store: --from URI or --to URI.", context)
    # Imported here: `modelwire --help` must not wait for boto3.
    from adapters.bundle_names import find_bundle
    from adapters.bundles import copy_bundle
    from adapters.object_store import open_store
    from adapters.settings import load_settings

    settings = load_settings()
    had, store = (
        open_store(each or settings.store_url, settings.s3_settings) for each in (source, target)
    )
    found = find_bundle(had, digest)
    is_new = copy_bundle(had, store, found)
    uri = f"{store.url}/bundles/{found.removeprefix('sha256:')}"
    if output == TABLE:
        click.echo(f"{'copied' if is_new else 'was there already'}\ndigest  {found}\nuri     {uri}")
    else:
        click.echo(as_text(output, {"digest": found, "uri": uri, "copied": is_new}))


def _text(made: "ForeignBundle") -> str:
    """What was made, for people."""
    manifest, parity = made.manifest, made.manifest.parity
    if parity is None:
        proof = (
            f"parity not proven: the golden data has no predictions ("
            f"{', '.join(output.name for output in manifest.contract.outputs)}); "
            f"{made.rows:,} rows were answered"
        )
    else:
        proof = (
            f"graph equals the pipeline to {parity.max_difference:.1e} on {parity.rows:,} rows "
            f"(limit {parity.limit:g})"
        )
    lines = [proof, f"{manifest.model}, {len(made.golden.vectors)} golden vectors"]
    for name, found in {} if made.evidence is None else made.evidence.outputs.items():
        model = found["model"]
        lines.append(
            f"{name} on {model.rows:,} actuals: rmse {model.rmse:.4g}, mae {model.mae:.4g}"
        )
    if made.golden.unexercised:
        lines.append(f"not in the data: {', '.join(made.golden.unexercised)}")
    return "\n".join(lines)


def _content(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no {kind} at {path}", hint="check the path") from None
    except OSError as error:
        raise ModelwireError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="name a file, and check its rights",
        ) from error


def _card(path: Path) -> bytes:
    content = _content(path, "model card")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise UsageProblem(
            f"{path} is not UTF-8: {error}", hint="a model card is Markdown in UTF-8"
        ) from error
    return content


def _source(path: Path, name: str, licence: str, attribution: str) -> "Source":
    from schemas.manifest import Source

    try:
        with path.open("rb") as file:
            digest, size = file_digest(file, "sha256").hexdigest(), file.tell()
    except FileNotFoundError:
        raise NotFound(f"no source at {path}", hint="check the path") from None
    except OSError as error:
        raise ModelwireError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="name a file, and check its rights",
        ) from error
    return Source(name, f"sha256:{digest}", size, licence, attribution)


def _say_on_stderr(line: str) -> None:
    click.echo(line, err=True)
