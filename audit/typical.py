"""What is typical for a model's requests: its bundle's holdout says it, else its golden vectors."""

import io
from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from adapters.bundles import Bundles
from audit.ablation import Columns, typical_values
from schemas.contract import Contract
from schemas.errors import ModelwireError
from schemas.manifest import GOLDEN_NAME, HOLDOUT_NAME, Manifest, decode_golden


class Typical(msgspec.Struct, frozen=True):
    """Field -> its typical value, the bundle's file that it was taken from, and how many rows it has."""

    values: dict[str, Any]
    source: str
    rows: int


def read_typical(bundles: Bundles, digest: str, manifest: Manifest) -> Typical:
    """The typical values of a bundle's requests. Raises as ``bundles`` does, for a bad file too."""
    contract = manifest.contract
    if HOLDOUT_NAME in manifest.files:
        columns = _holdout(bundles.read_file(digest, manifest, HOLDOUT_NAME), contract)
        source = HOLDOUT_NAME
    else:
        vectors = decode_golden(bundles.read_file(digest, manifest, GOLDEN_NAME))
        columns = _columns(contract, (msgspec.json.decode(each.inputs) for each in vectors))
        source = GOLDEN_NAME
    rows = max((len(values) for values in columns.values()), default=0)
    return Typical(typical_values(contract, columns), source, rows)


def _holdout(content: bytes, contract: Contract) -> Columns:
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        names = [field.name for field in contract.fields if field.name in file.schema_arrow.names]
        table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ModelwireError(f"{HOLDOUT_NAME} of the bundle cannot be read: {error}") from None
    return {
        name: [_as_json(value) for value in column.to_pylist()]
        for name, column in zip(names, table.columns, strict=True)
    }


def _columns(contract: Contract, rows: Iterable[dict[str, Any]]) -> Columns:
    """A field that a row leaves out has its default there."""
    asked = list(rows)
    return {
        field.name: [row.get(field.name, field.default) for row in asked]
        for field in contract.fields
    }


def _as_json(value: Any) -> Any:
    """Days as requests write them."""
    return msgspec.to_builtins(value)
