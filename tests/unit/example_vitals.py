"""An instance that answers with a canary, as vitals."""

from dataclasses import replace
from typing import Any

from consumer.measures import Identity
from consumer.tallies import Meters, Observed
from consumer.vitals import Vitals
from schemas.fleet import Phase, Runtime
from schemas.forecast import Variant

WHO = Identity("sales", "modelwire-sales-0", Runtime("1.31.0", "x86_64-avx2", "0.1.0"))


def _meters() -> Meters:
    meters = Meters()
    meters.batch(50, 0.003)
    meters.batch(54, 0.005)
    return meters


WELL = Vitals(
    phase=Phase.READY,
    detail="",
    joined=True,
    missing_threads=(),
    partitions=4,
    read_revision=9,
    revision=7,
    forecasts={(2, Variant.CHAMPION): 90, (3, Variant.CANDIDATE): 10},
    rejections={"not-json": 4},
    aborted=1,
    lag=12,
    batch_rows=_meters().batch_rows.read(),
    score_seconds=_meters().score_seconds.read(),
    swap_seconds={"fetch": Observed(2, 0.5)},
    refusals={"golden": 1},
    loaded=2,
    resident_bytes=150 * 2**20,
    horizon_days_left=30,
)


def vitals(**changes: Any) -> Vitals:
    """Its vitals, some of them other ones."""
    return replace(WELL, **changes)
