"""The manifest: what a bundle holds, and what proves it.

A bundle is an immutable folder in object storage. Its digest is the SHA-256 of the manifest's bytes,
and the manifest holds the digest and the size of every other file, so one digest fixes every byte.
The manifest is written last: a bundle without one does not exist.
"""

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal

import msgspec

from schemas.contract import Contract
from schemas.errors import ModelwireError

MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
GOLDEN_NAME = "golden.jsonl"
HOLDOUT_NAME = "holdout.parquet"
ACTUAL, PREDICTION = "actual", "prediction"
"""Its columns beside the request's fields: units sold, and the graph's own answer."""

CARD_NAME = "card.md"
CARD_PAGE_NAME = "card.html"
EVIDENCE_NAME = "evidence.json"

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""A manifest beyond this is refused before it is read: it is read before anything vouches for it."""

MAX_FILE_BYTES = 2 * 1024**3
"""No file of a bundle may say that it is larger than this."""

Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}(?!\n)$")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(?!\n)$")]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]


def digest_of(content: bytes) -> str:
    """``sha256:`` and the 64 hexadecimal digits of the content's SHA-256."""
    return f"sha256:{sha256(content).hexdigest()}"


class File(msgspec.Struct, frozen=True):
    """A file of the bundle: digest and size in bytes of its content."""

    digest: Digest
    size: Size


class Tolerance(msgspec.Struct, frozen=True):
    """How far an output may lie from its golden value: ``|x - g| <= absolute + relative * |g|``."""

    absolute: float
    relative: float


class Graph(msgspec.Struct, frozen=True):
    """What a runtime must know to run the model: ONNX IR version and operator sets by domain."""

    ir_version: int
    opsets: dict[str, int]


class Parity(msgspec.Struct, frozen=True):
    """The proof that the graph is the trained model: rows compared, and the largest difference.

    ``space`` says where the difference was taken: ``log1p`` (natural log of 1 + value) or ``identity``.
    ``cases`` maps what was compared, such as ``unknown-keys``, to its rows; each was run in batches of
    every one of ``batches`` rows.
    """

    rows: int
    space: Literal["log1p", "identity"]
    max_difference: float
    limit: float
    onnxruntime: str
    numeric_class: str
    batches: tuple[int, ...] = ()
    cases: dict[str, int] = {}


class PinRecord(msgspec.Struct, frozen=True):
    """What a data version control system (DVC) said of a source: its MD5, and the pin's file name.

    Where a folder that holds the source is pinned, it is the folder's MD5, which ends in ``.dir``.
    """

    md5: str
    path: str


class Source(msgspec.Struct, frozen=True):
    """A file that the model was trained on.

    ``name`` is its path below the folder of the dataset, or the address of an object; of a file elsewhere
    the bare name.
    """

    name: str
    digest: Digest
    size: int
    licence: str = ""
    attribution: str = ""
    pin: PinRecord | None = None


class RecipeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a training decided, enough to make the tables of the same regressor anew.

    ``chosen`` is what won the backtest, ``loss`` what the regressor learned, the half-lives (days) and
    ``shrinkage`` are those of the structural base, ``outlook_until`` the last day (ISO) that forecasts of
    traffic were learned from, and ``features`` the columns that the regressor reads, in order.
    """

    chosen: str
    loss: str
    effect_half_life: float
    level_half_life: float
    shrinkage: float
    outlook_until: str
    features: tuple[str, ...]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Enough to make the model again.

    ``config`` is the dataset configuration as written, ``packages`` maps a distribution to its
    version, ``git_commit`` is empty where the code is not in a checkout, ``cutoff`` is the last day of
    sales that training saw (ISO date). ``parent`` is the digest of the bundle whose regressor this one
    took over under new tables, empty for a training of its own.
    """

    sources: tuple[Source, ...]
    config: str
    preset: str
    seed: int
    cutoff: str
    packages: dict[str, str]
    python: str
    git_commit: str = ""
    recipe: RecipeRecord | None = None
    parent: str = ""


class Holdout(msgspec.Struct, frozen=True):
    """Days kept back in time, and the scores there.

    ``metrics`` maps a predictor (``model``, or the name of a baseline) to its metrics by name, such as
    ``{"model": {"wape": 0.87, "rmsle": 0.83}, "mean-28-log": {…}}``.
    """

    first: str
    last: str
    rows: int
    metrics: dict[str, dict[str, float]]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents page of a bundle. Unknown keys are accepted: later versions add some."""

    format: Literal["modelwire.bundle/1"] = "modelwire.bundle/1"
    model: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}(?!\n)$")]
    created_at: datetime
    contract: Contract
    files: dict[FileName, File]
    graph: Graph
    tolerance: Tolerance
    parity: Parity | None = None
    lineage: Lineage | None = None
    holdout: Holdout | None = None

    def __post_init__(self) -> None:
        missing = {MODEL_NAME, GOLDEN_NAME} - set(self.files)
        if missing:
            raise ValueError(f"the manifest lists no {' and no '.join(sorted(missing))}")


class GoldenVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of ``golden.jsonl``: raw inputs, and what the training pipeline says they give.

    ``inputs`` is kept as raw JSON so that it passes through the same decoder as a request.
    """

    inputs: msgspec.Raw
    outputs: dict[str, float | int | bool]


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes that are stored and digested: keys sorted, indented, one final newline."""
    compact = msgspec.json.encode(manifest, order="deterministic")
    return msgspec.json.format(compact, indent=2) + b"\n"


def decode_manifest(raw: bytes) -> Manifest:
    """A manifest from its bytes. Raises ModelwireError with the key that is wrong."""
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelwireError(
            f"the manifest is not valid: {error}",
            hint="make the bundle again; a bundle's files are never edited",
        ) from error


def decode_golden(raw: bytes) -> tuple[GoldenVector, ...]:
    """The lines of ``golden.jsonl``. Raises ModelwireError where one is malformed or none is there."""
    try:
        vectors = tuple(msgspec.json.Decoder(GoldenVector).decode_lines(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelwireError(f"the golden vectors are not valid: {error}") from error
    if not vectors:
        raise ModelwireError("the bundle holds no golden vectors")
    return vectors
