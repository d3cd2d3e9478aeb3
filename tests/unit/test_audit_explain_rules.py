"""Which score belongs to a request, why a version answered, and how it reads."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from audit.answers import Located
from audit.explain import (
    Explanation,
    Made,
    asked_of,
    chosen_for,
    given_in,
    scored_on,
)
from audit.explain_words import words_of
from audit.kept import Kept
from deployment.routing import bucket
from deployment.state import Deployment
from schemas.answer_file import Kind, Record
from schemas.evidence import BacktestRecord, Evidence, Examined, Group, Scores, Slice, SliceKind
from schemas.forecast import Forecast, Source, Variant
from schemas.manifest import Lineage
from schemas.manifest import Source as Read
from tests.unit.example_rollouts import NOON, champion_ledger

OVERALL = Scores(rows=100, rmsle=0.8, nwrmsle=0.9, wape=0.5, bias=-0.1)
INPUTS = {"country": "France", "stockcode": "22423", "region": "EU", "day": "2011-11-20"}


def scores(rmsle: float) -> dict[str, Scores]:
    """The model's, and a baseline's that is not to be shown."""
    return {
        "lag-7": Scores(rows=9, rmsle=9.0, nwrmsle=9.0),
        "model": Scores(rows=10, rmsle=rmsle, nwrmsle=rmsle),
    }


def sliced(name: str, kind: SliceKind, *groups: Group) -> Slice:
    return Slice(name=name, kind=kind, groups=groups)


def evidence(*slices: Slice) -> Evidence:
    """Evidence with a holdout of these slices."""
    holdout = Examined(
        origin="2011-11-10",
        first="2011-11-11",
        last="2011-12-09",
        rows=100,
        closed_rows=0,
        scores={"model": OVERALL},
        steps=(),
        slices=slices,
    )
    none = BacktestRecord(chosen="trees", scores={}, folds=())
    return Evidence(
        preset="full", loss="log", series=3, features=(), holdout=holdout, backtest=none
    )


def test_the_scores_are_those_of_the_groups_that_the_request_names() -> None:
    """Of keys and attributes in its inputs; for a small value of the pooled ones; no volume, no age."""
    country = sliced(
        "country", "key", Group("Spain", 1, 5.0, scores(0.7)), Group("France", 2, 9.0, scores(0.6))
    )
    code = sliced(
        *("stockcode", "key"),
        Group("1", 1, 5.0, scores(0.5)),
        Group("", 40, 9.0, scores(0.4), pooled=39),
    )
    region = sliced("region", "attribute", Group("EU", 3, 9.0, scores(0.3)))
    volume = sliced("volume", "volume", Group("1", 3, 9.0, scores(0.2)))
    unnamed = sliced("brand", "attribute", Group("x", 3, 9.0, scores(0.1)))
    found = scored_on(evidence(country, code, region, volume, unnamed), dict(INPUTS))
    assert found is not None
    assert (found.first, found.last, found.overall) == ("2011-11-11", "2011-12-09", OVERALL)
    assert [(each.slice, each.value, each.scores.rmsle, each.pooled) for each in found.slices] == [
        ("country", "France", 0.6, 0),
        ("stockcode", "", 0.4, 39),
        ("region", "EU", 0.3, 0),
    ]


def test_a_value_that_no_group_has_is_left_out() -> None:
    """Where nothing was pooled there is no group for what was never seen."""
    country = sliced("country", "key", Group("Spain", 1, 5.0, scores(0.7)))
    found = scored_on(evidence(country), dict(INPUTS))
    assert found is not None
    assert found.slices == ()


def test_evidence_without_scores_says_nothing() -> None:
    """A training that held nothing out and had no fold."""
    assert scored_on(msgspec.structs.replace(evidence(), holdout=None), dict(INPUTS)) is None


def kept(key: bytes | None = b"France|22423", **changes: Any) -> Kept:
    """A forecast of the champion, sales:2, at revision 6."""
    fields: dict[str, Any] = {
        "request_id": "r-1",
        "inputs": msgspec.Raw(msgspec.json.encode(INPUTS)),
        "outputs": {"units": 12.5},
        "model": "sales",
        "version": 2,
        "digest": f"sha256:{'2' * 64}",
        "variant": Variant.CHAMPION,
        "revision": 6,
        "source": Source("sales.requests", 3, 1042, 1_772_366_400_000),
        "scored_at": NOON,
        "instance": "modelwire-sales-0",
        "runtime": "onnxruntime 1.31.1 x86_64-avx512",
    }
    said = Forecast(**(fields | changes))
    place = Located(
        Kind.FORECASTS, "audit/f", "sales.results", 3, 77, NOON, "sales.requests/3/1042"
    )
    return Kept(place, Record(77, 0, key, b"{}"), said)


def deployment(weight: int) -> Deployment:
    """sales:2 is champion, sales:1 has this weight in rollout 7."""
    from deployment.state import Rollout

    state = champion_ledger().deployment
    moving = Rollout(7, 1, "canary", "salt", weight, NOON, 7)
    return replace(state, rollout=moving, revision=8)


@pytest.mark.parametrize("key", [b"France|22423", b"Spain|1", None, b"\xff"])
@pytest.mark.parametrize("offset", [0, 1])
def test_the_bucket_decides_and_the_sentence_says_on_which_side_of_the_weight(
    key: bytes | None, offset: int
) -> None:
    """The candidate answers the buckets below the weight, and not that of the weight itself."""
    place = bucket("salt", b"r-1" if key is None else key)
    is_candidate = offset == 1
    variant = Variant.CANDIDATE if is_candidate else Variant.CHAMPION
    answer = kept(key, variant=variant, version=1 if is_candidate else 2, revision=8)
    found = chosen_for(answer, deployment(place + offset), "r-1")
    assert (found.bucket, found.weight, found.rollout) == (place, place + offset, 7)
    assert ("not below" in found.why) is not is_candidate
    assert "which is not that" not in found.why
    assert found.why.startswith("its id" if key is None else "its key")
    wrong = kept(key, variant=variant, version=9, revision=8)
    assert "which is not that" in chosen_for(wrong, deployment(place + offset), "r-1").why


def test_without_a_deployment_nothing_is_claimed() -> None:
    """The log does not reach that revision."""
    found = chosen_for(kept(), None, "r-1")
    assert (found.bucket, found.version) == (None, 2)
    assert "does not say" in found.why


def test_the_lineage_reads_as_a_sentence() -> None:
    """Sources, cutoff, preset, seed, code, packages and the parent."""
    lineage = Lineage(
        sources=tuple(
            Read(name=f"day-{n}.csv", digest=f"sha256:{n:064x}", size=1) for n in range(7)
        ),
        config="",
        preset="full",
        seed=7,
        cutoff="2011-11-10",
        packages={"numpy": "2.4.6", "onnxruntime": "1.31.1"},
        python="3.11.7",
        git_commit="0123456789abcdef",
        parent="sha256:" + "9" * 64,
    )
    answer = kept()
    text = " ".join(
        words_of(
            Explanation(
                model="sales",
                request=asked_of(answer),
                answer=given_in(answer),
                chosen=chosen_for(answer, champion_ledger().deployment, "r-1"),
                made=Made(created_at=datetime(2026, 2, 28, tzinfo=UTC), lineage=lineage),
                missing=("its bundle has no evidence of how good it is",),
            )
        )
    )
    for part in (
        "Request 'r-1' came as sales.requests/3/1042 with the key 'France|22423'",
        "answered with units = 12.5",
        "2 more, sales up to 2011-11-10, preset full, seed 7, code 0123456789ab, Python 3.11.7",
        "numpy 2.4.6, onnxruntime 1.31.1",
        f"the regressor of bundle {lineage.parent}",
        "Not known: its bundle has no evidence",
    ):
        assert part in text, text
