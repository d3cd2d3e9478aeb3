"""Contracts, versions and requests that the tests of ``schemas`` and ``scoring`` share."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import numpy as np

from deployment.routing import Routing
from schemas.contract import (
    Binding,
    Contract,
    Field,
    FieldType,
    Horizon,
    Output,
    TensorType,
)
from scoring.batch import Answer, Incoming, answer
from scoring.model import Array, Model
from scoring.snapshot import LoadedVersion, Snapshot, load

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def field(
    name: str, kind: str, dtype: str, *, tensor: str = "", column: int | None = None, **rest: Any
) -> Field:
    """A field that fills the tensor of its own name, unless told otherwise."""
    binding = Binding(tensor or name, TensorType(dtype), column)
    return Field(name=name, type=FieldType(kind), binding=binding, description=name, **rest)


def output(
    name: str, kind: str = "float32", *, tensor: str = "", column: int | None = None
) -> Output:
    """An output of the tensor of its own name, unless told otherwise."""
    return Output(
        name=name, tensor=tensor or name, type=FieldType(kind), description=name, column=column
    )


HORIZON = Horizon(field="day", first=date(2017, 8, 1), last=date(2017, 8, 16))

SALES = Contract(
    fields=(
        field("store", "string", "string", max_length=16),
        field("day", "date", "int64"),
        field("promo", "bool", "float32", tensor="x", column=0),
        field("price", "float32", "float32", tensor="x", column=1, nullable=True),
        field("stock", "int64", "float32", tensor="x", column=2, required=False, default=7),
    ),
    outputs=(output("units"), output("lucky", "bool")),
    horizon=HORIZON,
    max_request_bytes=4096,
)

INPUTS: Mapping[str, Any] = {"store": "s1", "day": "2017-08-03", "promo": True, "price": 2.5}


class Arithmetic:
    """A model in numpy for SALES: units from day, x and the store's name; refuses the store "bad"."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs for ``feeds``."""
        stores = feeds["store"]
        self.sizes.append(len(stores))
        if "bad" in stores:
            raise RuntimeError("no such store")
        x = np.nan_to_num(feeds["x"], nan=-1.0, posinf=np.inf)
        length = np.array([len(name) for name in stores], dtype=np.float32)
        units = (
            (feeds["day"] % 7).astype(np.float32)
            + x @ np.array([1, 2, 3], dtype=np.float32)
            + length
        )
        units[stores == "endless"] = np.inf
        given = {"units": units.astype(np.float32)[:, np.newaxis], "lucky": feeds["day"] % 7 == 0}
        return [given[name] for name in outputs]


def loaded(model: Model, *, version: int = 1, contract: Contract = SALES) -> LoadedVersion:
    """The model as a version of ``contract``."""
    return load(version, f"sha256:{version:064x}", contract, model)


def snapshot_of(
    champion: LoadedVersion, candidate: LoadedVersion | None = None, weight: int = 0
) -> Snapshot:
    """A snapshot at revision 5 in which ``candidate`` has ``weight`` basis points."""
    routing = Routing(
        champion.version, None if candidate is None else candidate.version, weight, "salt"
    )
    return Snapshot("sales", 5, "log:5:head", routing, champion, candidate)


def incoming(value: bytes | None, *, offset: int = 0, key: bytes | None = b"k") -> Incoming:
    """A record of the request topic."""
    return Incoming("sales.requests", 3, offset, 1_500_000_000_000, key, value)


def request(inputs: Mapping[str, Any] | bytes = INPUTS, request_id: str = "r-1") -> bytes:
    """A request's bytes; ``inputs`` may be raw JSON."""
    raw = inputs if isinstance(inputs, bytes) else msgspec.json.encode(inputs)
    return b'{"request_id":%s,"inputs":%s}' % (msgspec.json.encode(request_id), raw)


def answers(
    snapshot: Snapshot, values: Sequence[bytes | None], limit: int = 10_000
) -> list[Answer]:
    """The answers to ``values``, which lie at offsets 0, 1, 2 …"""
    batch = [
        incoming(value, offset=offset, key=b"k%d" % offset) for offset, value in enumerate(values)
    ]
    return answer(snapshot, batch, scored_at=NOON, instance="sales-0", max_answer_bytes=limit)
