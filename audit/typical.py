"""What is typical for a model's requests, and how it did for such ones: its bundle's holdout says it.

A bundle without a holdout has golden vectors, which show what is asked and no score.
"""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adapters.bundles import Bundles
from audit.ablation import Columns, typical_values
from audit.held_out import HeldOutScore, held_out_scores
from schemas.contract import Contract, FieldType
from schemas.errors import ModelwireError
from schemas.manifest import (
    ACTUAL,
    GOLDEN_NAME,
    HOLDOUT_NAME,
    PREDICTION,
    Manifest,
    decode_golden,
)


class Typical(msgspec.Struct, frozen=True):
    """Field -> its typical value, the bundle's file that it was taken from, and how many rows it has."""

    values: dict[str, Any]
    source: str
    rows: int
    held_out: tuple[HeldOutScore, ...] = ()
    """Scores of what the request names, where the bundle has a holdout."""


def read_typical(
    bundles: Bundles, digest: str, manifest: Manifest, inputs: Mapping[str, Any]
) -> Typical:
    """What is typical of a bundle's requests, and how it did for one with these inputs.

    Raises as ``bundles`` does, for a bad file too.
    """
    contract = manifest.contract
    if HOLDOUT_NAME in manifest.files:
        return _from_holdout(bundles.read_file(digest, manifest, HOLDOUT_NAME), contract, inputs)
    vectors = decode_golden(bundles.read_file(digest, manifest, GOLDEN_NAME))
    columns = _columns(contract, (msgspec.json.decode(each.inputs) for each in vectors))
    return Typical(typical_values(contract, columns), GOLDEN_NAME, len(vectors))


def _from_holdout(content: bytes, contract: Contract, inputs: Mapping[str, Any]) -> Typical:
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise ModelwireError(f"{HOLDOUT_NAME} of the bundle cannot be read: {error}") from None
    names = [field.name for field in contract.fields if field.name in table.column_names]
    columns = {
        name: [msgspec.to_builtins(value) for value in table[name].to_pylist()] for name in names
    }
    typical = typical_values(contract, columns)
    if not {ACTUAL, PREDICTION} <= set(table.column_names):
        return Typical(typical, HOLDOUT_NAME, table.num_rows)
    keys = {
        field.name: inputs[field.name]
        for field in contract.fields
        if field.type is FieldType.STRING and isinstance(inputs.get(field.name), str)
    }
    actual, answers = (table[name].to_numpy().astype(np.float64) for name in (ACTUAL, PREDICTION))
    own = held_out_scores(columns, actual, answers, keys)
    return Typical(typical, HOLDOUT_NAME, table.num_rows, own)


def _columns(contract: Contract, rows: Iterable[dict[str, Any]]) -> Columns:
    """A field that a row leaves out has its default there."""
    asked = list(rows)
    return {
        field.name: [row.get(field.name, field.default) for row in asked]
        for field in contract.fields
    }
