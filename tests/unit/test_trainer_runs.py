"""Trainings are listed and compared from what their bundles say, and a bad bundle hides no other."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from adapters.bundles import write_bundle
from adapters.object_store import ObjectStore, open_store
from schemas.errors import NotFound, UsageProblem
from schemas.manifest import Holdout, Lineage, RecipeRecord, Source, digest_of
from tests.bundles import make_bundle
from trainer.runs import compare_runs, list_runs
from trainer.runs_cli import runs

METRICS = {"rmsle": 0.4, "wape": 0.15, "bias": -0.02, "coverage": 0.79}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


def lineage(**changes: Any) -> Lineage:
    usual = Lineage(
        sources=(Source("panel.parquet", digest_of(b"old"), 3),),
        config='name = "x"\nhorizon = 14\n',
        preset="full",
        seed=0,
        cutoff="2024-03-30",
        packages={"numpy": "2.1", "onnx": "1.19"},
        python="3.11.7",
        recipe=RecipeRecord(
            chosen="trees",
            loss="log1p",
            effect_half_life=28.0,
            level_half_life=14.0,
            shrinkage=6.0,
            outlook_until="2024-01-01",
            features=("level",),
        ),
    )
    return msgspec.structs.replace(usual, **changes)


def holdout(first: str = "2024-03-31", **changes: float) -> Holdout:
    return Holdout(
        first, "2024-04-13", 336, {"lag-7": {"rmsle": 0.6}, "model": {**METRICS, **changes}}
    )


def store_run(store: ObjectStore, day: int = 1, slope: float = 1.0, **changes: Any) -> str:
    """A bundle made on a day of March; returns its digest."""
    manifest, files = make_bundle("sales", slope)
    told = {"lineage": lineage(), "holdout": holdout(), **changes}
    made = datetime(2026, 3, day, 12, tzinfo=UTC)
    return write_bundle(store, msgspec.structs.replace(manifest, created_at=made, **told), files)


def test_runs_are_listed_newest_first(store: ObjectStore) -> None:
    """With what a manifest says of the training and of its holdout."""
    older = store_run(store, 1)
    newer = store_run(store, 2, lineage=lineage(parent=older))
    found = list_runs(store)
    assert [run.digest for run in found] == [newer, older]
    assert (found[0].preset, found[0].loss, found[0].cutoff) == ("full", "log1p", "2024-03-30")
    assert found[0].metrics == METRICS
    assert (found[0].parent, found[1].parent) == (older, None)


def test_a_bundle_made_elsewhere_is_listed_too(store: ObjectStore) -> None:
    """Without lineage and holdout there is less to say."""
    digest = store_run(store, lineage=None, holdout=None)
    (run,) = list_runs(store)
    assert (run.digest, run.model, run.preset, run.metrics) == (digest, "sales", None, {})


def test_a_damaged_bundle_is_a_row_that_says_why(store: ObjectStore) -> None:
    """The others are listed all the same, and it comes last."""
    digest = store_run(store)
    bad = "0" * 64
    store.put_if_absent(f"bundles/{bad}/manifest.json", b"{}")
    good, damaged = list_runs(store)
    assert (good.digest, good.problem) == (digest, None)
    assert damaged.digest == f"sha256:{bad}"
    assert "damaged" in str(damaged.problem)


def test_runs_of_one_model(store: ObjectStore) -> None:
    """Others are left out."""
    digest = store_run(store)
    manifest, files = make_bundle("other", 2.0)
    write_bundle(store, manifest, files)
    assert [run.digest for run in list_runs(store, "sales")] == [digest]


def test_comparison_tells_metrics_with_their_difference(store: ObjectStore) -> None:
    """The second less the first, the model before the baselines; None where one has no such metric."""
    a = store_run(store, 1)
    b = store_run(store, 2, holdout=holdout(rmsle=0.38, pinball=3.0))
    found = compare_runs(store, a, b)
    assert found.same_holdout
    assert found.metrics[0].predictor == "model"
    pairs = {(pair.predictor, pair.metric): pair for pair in found.metrics}
    assert pairs["model", "rmsle"].difference == pytest.approx(-0.02)
    assert pairs["lag-7", "rmsle"].difference == 0.0
    assert (pairs["model", "pinball"].a, pairs["model", "pinball"].difference) == (None, None)


def test_comparison_says_that_holdouts_differ(store: ObjectStore) -> None:
    """Scores of other days do not compare; days that were never held out neither."""
    a, b = store_run(store, 1), store_run(store, 2, holdout=holdout("2024-04-01"))
    assert not compare_runs(store, a, b).same_holdout
    c, d = store_run(store, 3, holdout=None), store_run(store, 4, holdout=None)
    assert not compare_runs(store, c, d).same_holdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"holdout": holdout("2024-04-01")},
            "other days were held out: A 2024-03-31 … 2024-04-13 (336",
        ),
        ({"holdout": None}, "B held nothing out"),
        (
            {
                "lineage": lineage(sources=(Source("panel.parquet", digest_of(b"new"), 3),)),
                "holdout": Holdout(
                    "2024-03-31", "2024-04-13", 336, {"lag-7": {"rmsle": 0.7}, "model": METRICS}
                ),
            },
            "other data, with other sales: lag-7 has other scores on the same days",
        ),
        (
            {
                "lineage": lineage(sources=(Source("panel.parquet", digest_of(b"new"), 3),)),
                "holdout": Holdout("2024-03-31", "2024-04-13", 336, {"model": METRICS}),
            },
            "no baseline that would show whether the sales are the same",
        ),
        ({"model": "other"}, "A is of the model sales, B of other"),
    ],
)
def test_runs_that_do_not_compare_say_why_and_tell_no_difference(
    store: ObjectStore, changes: dict[str, Any], said: str
) -> None:
    """The figures stand beside each other all the same."""
    a, b = store_run(store, 1), store_run(store, 2, **changes)
    found = compare_runs(store, a, b)
    assert any(said in why for why in found.incomparable)
    assert {pair.difference for pair in found.metrics} == {None}
    assert METRICS["rmsle"] in {pair.a for pair in found.metrics}
    table = call(store, "compare", a, b)
    assert "the scores do not compare: " in table
    assert said in table
    assert "B - A" not in table


def test_another_side_table_leaves_runs_comparable(store: ObjectStore) -> None:
    """The baselines read sales alone: where they score the same, so do the rows."""
    more = (*lineage().sources, Source("stores.csv", digest_of(b"s"), 1))
    a, b = store_run(store, 1), store_run(store, 2, lineage=lineage(sources=more))
    assert not compare_runs(store, a, b).incomparable
    assert "B - A" in call(store, "compare", a, b)


def test_of_long_lists_only_the_difference_is_shown(store: ObjectStore) -> None:
    """Forty features that both have say nothing; JSON has them all."""
    both = tuple(f"feature-{number}" for number in range(40))
    digests = [
        store_run(store, day, lineage=lineage(recipe=replaced(features=(*both, own))))
        for day, own in ((1, "season"), (2, "traffic"))
    ]
    table = call(store, "compare", *digests)
    assert "only: season" in table
    assert "only: traffic" in table
    assert "feature-3" not in table
    assert "feature-3" in call(store, "compare", *digests, "-o", "json")


def replaced(**changes: Any) -> RecipeRecord:
    recipe = lineage().recipe
    assert recipe is not None
    return msgspec.structs.replace(recipe, **changes)


def test_comparison_tells_what_differs_and_only_that(store: ObjectStore) -> None:
    """Data by source, recipe, packages, contract, and the lines of the configuration."""
    a = store_run(store, 1)
    b = store_run(
        store,
        2,
        slope=2.0,
        lineage=lineage(
            sources=(
                Source("panel.parquet", digest_of(b"new"), 3),
                Source("stores.csv", digest_of(b""), 0),
            ),
            config='name = "x"\nhorizon = 28\n',
            seed=1,
            packages={"numpy": "2.2", "onnx": "1.19"},
        ),
    )
    found = compare_runs(store, a, b)
    assert [(each.name, each.a, each.b) for each in found.data] == [
        ("panel.parquet", digest_of(b"old"), digest_of(b"new")),
        ("stores.csv", None, digest_of(b"")),
    ]
    assert [(each.name, each.a, each.b) for each in found.recipe] == [("seed", 0, 1)]
    assert [(each.name, each.a, each.b) for each in found.packages] == [("numpy", "2.1", "2.2")]
    assert found.contract == ()
    assert found.config[-2:] == ("-horizon = 14", "+horizon = 28")
    assert not found.same_model_bytes


def test_a_run_does_not_differ_from_itself(store: ObjectStore) -> None:
    """Nothing is told of what is the same."""
    digest = store_run(store)
    found = compare_runs(store, digest, digest)
    assert found.same_model_bytes
    differing = (found.data, found.recipe, found.packages, found.contract, found.config)
    assert not any(differing)
    assert {pair.difference for pair in found.metrics} == {0.0}


def call(store: ObjectStore, *words: str) -> str:
    done = CliRunner().invoke(
        runs, [*words, "--store", store.url], catch_exceptions=False, standalone_mode=False
    )
    if done.exception is not None:
        raise done.exception
    return done.output


def test_list_command_shows_a_table_and_json(store: ObjectStore) -> None:
    """The short digest in the table names the bundle for any command."""
    digest = store_run(store)
    table = call(store, "list")
    assert digest.removeprefix("sha256:")[:12] in table
    assert "0.4000" in table
    (run,) = json.loads(call(store, "list", "-o", "json"))["runs"]
    assert (run["digest"], run["metrics"]) == (digest, METRICS)
    assert "digest: " in call(store, "list", "-o", "yaml")


def test_list_command_says_that_there_is_nothing(store: ObjectStore) -> None:
    """And what makes a bundle."""
    assert "modelwire train" in call(store, "list")


def test_compare_command_takes_the_beginnings_of_digests(store: ObjectStore) -> None:
    """As every command that names a bundle."""
    a, b = store_run(store, 1), store_run(store, 2, lineage=lineage(seed=1))
    words = [digest.removeprefix("sha256:")[:12] for digest in (a, b)]
    table = call(store, "compare", *words)
    assert a in table
    assert b in table
    assert "seed" in table
    assert "data: the same" in table
    told = json.loads(call(store, "compare", *words, "-o", "json"))
    assert told["recipe"] == [{"name": "seed", "a": 0, "b": 1}]


def test_compare_command_refuses_what_names_no_bundle(store: ObjectStore) -> None:
    """With the error that says what to give."""
    digest = store_run(store)
    with pytest.raises(UsageProblem, match="names no bundle"):
        call(store, "compare", digest, "sales:1")
    with pytest.raises(NotFound, match="begins with"):
        call(store, "compare", digest, "abcdefabc")
