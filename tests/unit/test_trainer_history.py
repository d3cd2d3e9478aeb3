"""One feature list, two interpreters: numpy and the graph read the same numbers, none from the future."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from adapters.onnx_model import load_onnx_model
from tests.unit.trainer_panels import (
    Facets,
    forecaster_of,
    panel_with,
    recipe_of,
    scrambled_after,
)
from trainer.estimator import Forecaster, Preset, fit
from trainer.evaluation import held_out
from trainer.graph import export
from trainer.history import (
    GRID,
    SERIES,
    WEEKDAY,
    Lookup,
    axis_sizes,
    feature_names,
    full_lookups,
    gather,
    merged,
    on_grid,
    plain_lookups,
)
from trainer.panel import Panel
from trainer.parity import cases, feeds_of
from trainer.past import Demand, Past
from trainer.requests import Requests
from trainer.structural import PACES

EVERYTHING = Facets(flag=True, number=True, closed=True)

KINDS = {
    "keys alone": (Facets(), recipe_of(corrected=False)),
    "plain": (EVERYTHING, recipe_of(Preset.PLAIN)),
    "flags, numbers and closed days": (EVERYTHING, recipe_of(corrected=False)),
    "whole-number keys": (Facets(whole_keys=True), recipe_of(corrected=False)),
    "season and calendar": (
        Facets(products=3, days=700, yearly=0.4, holidays=True),
        recipe_of(corrected=False),
    ),
    "traffic": (Facets(products=3, traffic=True), recipe_of(corrected=False)),
    "tables large enough for int16": (
        Facets(shops=10, products=30, flag=True),
        recipe_of(corrected=False),
    ),
}


def in_graph(forecaster: Forecaster, requests: Requests, tensors: Sequence[str]) -> list[Any]:
    """What tensors inside the exported graph hold for the requests."""
    model = onnx.load_model_from_string(export(forecaster, "day"))
    for tensor in tensors:
        model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    feeds = feeds_of(forecaster, requests, "day")
    return load_onnx_model(model.SerializeToString()).run(feeds, tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_graph_gathers_the_bits_that_numpy_gathers(kind: str) -> None:
    """Every feature of every held-out, unknown, missing and far request is bit-equal in both."""
    facets, recipe = KINDS[kind]
    panel = panel_with(facets)
    forecaster = forecaster_of(fit(panel, recipe))
    for case, requests in cases(forecaster, held_out(panel).requests).items():
        features, base = forecaster.matrix(requests)
        [graph] = in_graph(forecaster, requests, ["matrix/features"])
        assert graph.shape == (len(requests), len(forecaster.features)), case
        assert graph.tobytes() == features.tobytes(), case
        if "base" in forecaster.features:
            assert graph[:, -1].tobytes() == base.tobytes(), case


@pytest.mark.parametrize("kind", KINDS)
def test_tables_lie_on_the_grid(kind: str) -> None:
    """Midpoints of table values are exact in float32, so trees split alike."""
    facets, recipe = KINDS[kind]
    for lookup in fit(panel_with(facets), recipe).lookups:
        scaled = lookup.table.astype(np.float64) * GRID
        assert lookup.table.dtype == np.float32
        assert np.array_equal(scaled, np.round(scaled)), lookup.axes
        assert np.abs(scaled).max() < 2**23


PANEL = panel_with(Facets(flag=True, number=True, closed=True))
LONG = panel_with(Facets(shops=2, products=3, days=660, yearly=0.4, flag=True))


def tables(panel: Panel, origin: int) -> list[bytes]:
    past = Past.of(Demand.of(panel), origin, PACES[0])
    return [each.table.tobytes() for each in (*full_lookups(past), *plain_lookups(past))]


@settings(max_examples=25, deadline=None)
@given(st.integers(20, PANEL.cutoff - 1), st.integers(0, 2**32 - 1))
def test_tables_hold_nothing_of_days_after_their_origin(origin: int, seed: int) -> None:
    """Other sales, flags, numbers and closed days after an origin leave its tables alone."""
    assert tables(PANEL, origin) == tables(scrambled_after(PANEL, origin, seed), origin)


@settings(max_examples=10, deadline=None)
@given(st.integers(548, LONG.cutoff - 1), st.integers(0, 2**32 - 1))
def test_seasons_hold_nothing_of_days_after_their_origin(origin: int, seed: int) -> None:
    """The same where a season is fitted over years."""
    assert tables(LONG, origin) == tables(scrambled_after(LONG, origin, seed), origin)


@pytest.mark.parametrize("panel", [PANEL, LONG])
def test_tables_do_hold_the_origin_itself(panel: Panel) -> None:
    """The day of the origin is known: without this the tests above could pass on empty tables."""
    origin = panel.cutoff - 8
    assert tables(panel, origin) != tables(scrambled_after(panel, origin - 1, 1), origin)


def test_features_say_what_their_names_say() -> None:
    """A few features of one series, worked out by hand."""
    panel = panel_with(Facets(level=0.0))
    past = Past.of(Demand.of(panel), panel.cutoff, PACES[0])
    lookups = merged(full_lookups(past))
    lookup = next(each for each in lookups if each.axes == (SERIES,))
    units = panel.units[3, : panel.cutoff + 1]
    value = dict(zip(lookup.names, lookup.table[3], strict=True))
    assert value["mean_7"] == pytest.approx(np.log1p(units[-7:]).mean(), abs=1 / GRID)
    assert value["zeros_28"] == pytest.approx((units[-28:] == 0).mean(), abs=1 / GRID)
    assert value["days_since_sale"] == len(units) - 1 - np.flatnonzero(units)[-1]
    change = np.log1p(units[-7:]).mean() - np.log1p(units[-14:-7]).mean()
    assert value["change_week"] == pytest.approx(change, abs=1 / GRID)
    by_day = next(each for each in lookups if each.axes == (SERIES, WEEKDAY))
    monday = by_day.table[3 * 7, by_day.names.index("weekday_2")]
    mondays = np.flatnonzero(panel.weekdays(np.arange(len(units))) == 0)
    assert monday == pytest.approx(np.log1p(units[mondays[-2:]]).mean(), abs=1 / GRID)


def test_cold_rows_are_means_of_what_they_stand_for() -> None:
    """The row of an unknown product in a known shop is the mean over the shop's series."""
    panel = panel_with(Facets())
    past = Past.of(Demand.of(panel), panel.cutoff, PACES[0])
    lookup = next(each for each in merged(full_lookups(past)) if each.axes == (SERIES,))
    level = lookup.table[:, lookup.names.index("level")]
    of_shop = level[: panel.keys.series][panel.keys.codes[0] == 1]
    assert level[panel.keys.cold_rows(0)[1]] == pytest.approx(of_shop.mean(), abs=1 / GRID)
    assert level[-1] == pytest.approx(level[: panel.keys.series].mean(), abs=1 / GRID)


def test_base_is_the_sum_of_its_offsets() -> None:
    """Level and weekday, lift of each flag, and season add up to the last feature."""
    panel = panel_with(Facets(products=3, days=700, yearly=0.4, flag=True))
    forecaster = forecaster_of(fit(panel, recipe_of(corrected=False)))
    features, base = forecaster.matrix(held_out(panel).requests)
    offsets = [name for lookup in forecaster.lookups for name in lookup.offsets]
    assert sorted(offsets) == ["flag:promotion:base", "level", "season", "weekday_effect"]
    columns = [features[:, forecaster.features.index(name)] for name in offsets]
    assert np.array_equal(np.sum(columns, axis=0, dtype=np.float64), base)
    assert np.array_equal(features[:, -1], base)


def test_merging_keeps_every_column() -> None:
    """Lookups of the same axes become one: other order, same values, fewer gathers."""
    one = Lookup((SERIES,), ("a", "b"), on_grid([[1, 2], [3, 4]]))
    other = Lookup((WEEKDAY,), ("c",), on_grid(np.arange(7)[:, None]))
    more = Lookup((SERIES,), ("d",), on_grid([[5], [6]]), ("d",))
    together = merged([one, other, more])
    assert [each.axes for each in together] == [(SERIES,), (WEEKDAY,)]
    assert feature_names(together, ["n"]) == ("a", "b", "d", "c", "number:n", "base")
    positions = {SERIES: np.array([1]), WEEKDAY: np.array([3])}
    number = np.array([0.5], dtype=np.float32)
    features, base = gather(together, positions, {SERIES: 2, WEEKDAY: 7}, [number])
    assert features.tolist() == [[3.0, 4.0, 6.0, 3.0, 0.5, 6.0]]
    assert base.tolist() == [6.0]


def test_axes_have_room_for_what_is_unknown() -> None:
    """A key's axis has one more position than values, the series axis the cold rows."""
    keys = PANEL.keys
    assert axis_sizes(keys, 7, ["promotion"]) == {
        "series": 19 + 4 + 5 + 1,
        "weekday": 7,
        "step": 7,
        "key:shop": 5,
        "key:product": 6,
        "flag:promotion": 2,
    }


def test_values_too_large_for_int16_stay_exact() -> None:
    """A table with a value of 32 or more is kept as float32, and gathered as it is."""
    panel = panel_with(Facets(shops=10, products=30))
    forecaster = forecaster_of(fit(panel, recipe_of(corrected=False)))
    lookup = next(each for each in forecaster.lookups if each.axes == (SERIES,))
    table = lookup.table.copy()
    table[2, 0] = 40.0
    wide = replace(
        forecaster,
        lookups=tuple(
            replace(each, table=table) if each is lookup else each for each in forecaster.lookups
        ),
    )
    requests = held_out(panel).requests
    [graph] = in_graph(wide, requests, ["matrix/features"])
    assert graph.tobytes() == wide.matrix(requests)[0].tobytes()
    assert graph.max() >= 40.0
    assert len(export(wide, "day")) > len(export(forecaster, "day"))
