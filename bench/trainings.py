"""One training of the trainer's bench: how wrong it is on its holdout, and what its graph takes."""

import statistics
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from adapters.onnx_model import load_onnx_model
from trainer.bundle import stand_ins
from trainer.chain import Design
from trainer.dataset import OUTPUTS, DatasetFile, LossChoice, load_dataset
from trainer.estimator import Forecaster, Preset
from trainer.evaluation import HeldOut, held_out, interval_scores, scores
from trainer.generator import generate
from trainer.graph import export
from trainer.keys import Floats
from trainer.panel import Panel
from trainer.parity import cases, compare, feeds_of
from trainer.reading import read_panel
from trainer.requests import Forecasts
from trainer.sources import open_sources
from trainer.training import Trained, develop

BATCH, ROUNDS = 256, 30


@dataclass(frozen=True)
class Result:
    """A trained model on its holdout."""

    panel: Panel
    trained: Trained
    held: HeldOut
    answers: Forecasts
    cpu_seconds: float

    @property
    def metrics(self) -> dict[str, float]:
        """The model's, over all rows."""
        found = scores(self.held.actual, self.answers.sales, self.held.weights)
        return found | interval_scores(self.held.actual, self.answers)

    def rmsle(self, predicted: Floats) -> float:
        """The error of another predictor on the same rows."""
        return scores(self.held.actual, predicted, self.held.weights)["rmsle"]


def train(panel: Panel, loss: LossChoice, seed: int = 0) -> Result:
    """The full preset, as ``modelwire train`` has it, but for reading."""
    began = time.process_time()
    trained = develop(panel, Preset.FULL, loss, seed)
    spent = time.process_time() - began
    held = held_out(panel)
    return Result(panel, trained, held, trained.forecaster.predict(held.requests), spent)


def read(file: DatasetFile, cutoff: date | None = None) -> Panel:
    """The panel of a dataset."""
    with open_sources(file) as sources:
        return read_panel(file, sources, cutoff)


def made(
    folder: Path, design: Design, config: str = "", loss: LossChoice | None = None
) -> tuple[Panel, LossChoice]:
    """A generated panel, read by its own configuration or by another one."""
    place = generate(design, folder).dataset
    if config:
        place.write_text(config, encoding="utf-8")
    file = load_dataset(place)
    return read(file), file.dataset.loss if loss is None else loss


def by_value(result: Result, key: str) -> dict[str, float]:
    """Coverage for each value of a key."""
    keys = result.panel.keys
    position = keys.names.index(key)
    codes = keys.codes[position][result.held.series]
    inside = result.answers.sales_p10 <= result.held.actual
    inside &= result.held.actual <= result.answers.sales_p90
    return {
        str(value): float(inside[codes == code].mean())
        for code, value in enumerate(keys.vocabulary[position])
    }


def describe(result: Result) -> str:
    """What was published, how it agrees with its graph, and what the graph weighs and takes."""
    forecaster = result.trained.forecaster
    content = export(forecaster, "day")
    model = load_onnx_model(content)
    agreement = compare(model, forecaster, cases(forecaster, result.held.requests), "day")
    return (
        f"{result.trained.backtest.chosen}, parity {agreement.max_difference:.1e} on "
        f"{sum(agreement.rows.values()):,} rows, {len(content) / 1e6:.2f} MB, "
        f"{microseconds(forecaster, result.panel, content):.1f} µs a row, "
        f"{result.cpu_seconds:.0f} s of CPU"
    )


def microseconds(forecaster: Forecaster, panel: Panel, content: bytes) -> float:
    """Of the graph for a row, in batches of shuffled rows: the median of some rounds."""
    requests = stand_ins(replace(panel, units=panel.units[:, : panel.cutoff + 1]))
    order = np.random.default_rng(0).permutation(len(requests))[: 40 * BATCH]
    feeds = feeds_of(forecaster, requests.take(order), "day")
    model = load_onnx_model(content)
    batches = [
        {name: values[start : start + BATCH] for name, values in feeds.items()}
        for start in range(0, len(order) - BATCH + 1, BATCH)
    ]
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for batch in batches:
            model.run(batch, OUTPUTS)
        taken.append((time.perf_counter() - began) / (len(batches) * BATCH) * 1e6)
    return statistics.median(taken)
