"""The bundle: from a dataset to everything that a release needs, or nothing at all.

Read the panel → train → export → prove the graph (``trainer.parity``; a refusal ends it here) →
holdout rows, golden vectors, card → manifest. Nothing is stored: that is for the caller, once all
of it exists. The clock is an argument, and only the manifest's ``created_at`` holds it, so
the same data, configuration and packages give the same ``model.onnx``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

from adapters.onnx_model import graph_of, load_onnx_model, numeric_class
from schemas.contract import (
    Beyond,
    Binding,
    Contract,
    Field,
    FieldType,
    Horizon,
    Output,
    TensorType,
)
from schemas.manifest import (
    CARD_NAME,
    GOLDEN_NAME,
    HOLDOUT_NAME,
    MODEL_NAME,
    File,
    Holdout,
    Manifest,
    Parity,
    digest_of,
)
from trainer.card import model_card
from trainer.dataset import IN_HORIZON, KNOWN_SERIES, SALES, Dataset, DatasetFile
from trainer.estimator import Forecaster, Forecasts, Preset, train
from trainer.evaluation import HeldOut, Predictor, held_out, scores
from trainer.golden import TOLERANCE, check_tolerance, golden_lines, golden_requests
from trainer.graph import export
from trainer.lineage import lineage_of
from trainer.panel import MAX_KEY_LENGTH, day_of, read_panel, read_source
from trainer.parity import LIMIT, Agreement, Requests, compare, run_graph, unknown_requests


@dataclass(frozen=True)
class Bundle:
    """A manifest and the content of each file that it names; ``adapters.bundles`` stores it."""

    manifest: Manifest
    files: dict[str, bytes]


def train_bundle(
    file: DatasetFile,
    preset: Preset,
    *,
    created_at: datetime,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Trains on a dataset and assembles the bundle. ``progress`` hears one line for each step.

    Raises ModelwireError for a panel that cannot be used, RefusedByRule where parity fails.
    """
    dataset = file.dataset
    progress(f"reading {file.source.name}")
    source = read_source(file)
    panel = read_panel(file, source)
    progress(f"training {preset} on {panel.keys.series:,} series up to {day_of(panel.cutoff_day)}")
    forecaster = train(panel, preset, seed)
    progress("exporting the graph")
    content = export(forecaster, dataset.date)
    held = held_out(panel)
    progress(f"comparing the graph with Python on {len(held.days):,} held-out rows")
    proof = prove(forecaster, content, held, dataset.date, seed)

    contract = contract_of(dataset, forecaster)
    lineage = lineage_of(file, source, panel, preset, seed)
    holdout = _holdout(held, proof.held_out)
    parity = _parity(proof.agreement)
    files = {
        MODEL_NAME: content,
        GOLDEN_NAME: proof.golden,
        HOLDOUT_NAME: _holdout_rows(held, proof.held_out, dataset.date),
        CARD_NAME: model_card(
            dataset, forecaster, contract, lineage, holdout, parity, panel.unit_share
        ),
    }
    manifest = Manifest(
        model=dataset.model,
        created_at=created_at,
        contract=contract,
        files={name: File(digest_of(each), len(each)) for name, each in files.items()},
        graph=graph_of(content),
        tolerance=TOLERANCE,
        parity=parity,
        lineage=lineage,
        holdout=holdout,
    )
    return Bundle(manifest=manifest, files=files)


@dataclass(frozen=True)
class Proof:
    """What the comparison of Python and graph gave: ``held_out`` are the graph's own answers."""

    agreement: Agreement
    held_out: Forecasts
    golden: bytes


def prove(
    forecaster: Forecaster, content: bytes, held: HeldOut, date_field: str, seed: int
) -> Proof:
    """Compares the exported ``content`` with the forecaster; RefusedByRule where they differ."""
    model = load_onnx_model(content)
    known = Requests(columns=held.columns, days=held.days)
    unknown = unknown_requests(forecaster)
    agreements, answers = [], []
    for requests in (known, unknown):
        python = forecaster.predict(requests.columns, requests.days)
        graph = run_graph(model, requests, date_field)
        agreements.append(compare(requests, python, graph))
        answers.append(graph)
    golden = golden_requests(forecaster, held, seed)
    python = forecaster.predict(golden.columns, golden.days)
    check_tolerance(python, run_graph(model, golden, date_field))
    agreement = Agreement(
        rows=sum(each.rows for each in agreements),
        max_difference=max(each.max_difference for each in agreements),
    )
    lines = golden_lines(golden, python, date_field)
    return Proof(agreement=agreement, held_out=answers[0], golden=lines)


def contract_of(dataset: Dataset, forecaster: Forecaster) -> Contract:
    """The contract of a forecaster: its keys as strings, then the date."""
    keys = tuple(
        Field(
            name=name,
            type=FieldType.STRING,
            binding=Binding(tensor=name, dtype=TensorType.STRING),
            description=f"{description}; an unknown one is answered from a mean",
            max_length=MAX_KEY_LENGTH,
        )
        for name, description in dataset.keys.items()
    )
    day = Field(
        name=dataset.date,
        type=FieldType.DATE,
        binding=Binding(tensor=dataset.date, dtype=TensorType.INT64),
        description="Day to forecast",
        unit="day",
    )
    cutoff = day_of(forecaster.cutoff_day)
    return Contract(
        fields=(*keys, day),
        outputs=(
            _output(SALES, FieldType.FLOAT32, "Sales on that day, at least 0", dataset.unit),
            _output(KNOWN_SERIES, FieldType.INT64, "1 where training knew the series, else 0"),
            _output(IN_HORIZON, FieldType.INT64, "1 where the day lies in the horizon, else 0"),
        ),
        horizon=Horizon(
            field=dataset.date,
            first=cutoff + timedelta(days=1),
            last=cutoff + timedelta(days=forecaster.horizon),
            beyond=Beyond.REJECT,
        ),
    )


def _output(name: str, kind: FieldType, description: str, unit: str = "") -> Output:
    return Output(name=name, tensor=name, type=kind, description=description, unit=unit)


def _holdout(held: HeldOut, graph: Forecasts) -> Holdout:
    predictions = {Predictor.MODEL: graph.sales.astype(np.float64), **held.baselines}
    return Holdout(
        first=day_of(held.days[0]).isoformat(),
        last=day_of(held.days[-1]).isoformat(),
        rows=len(held.days),
        metrics={each.value: scores(held.actual, predictions[each]) for each in Predictor},
    )


def _parity(agreement: Agreement) -> Parity:
    return Parity(
        rows=agreement.rows,
        space="log1p",
        max_difference=agreement.max_difference,
        limit=LIMIT,
        onnxruntime=onnxruntime.__version__,
        numeric_class=numeric_class(),
    )


def _holdout_rows(held: HeldOut, graph: Forecasts, date_field: str) -> bytes:
    """Raw inputs as the contract names them (keys as text, the date as date32), ``actual`` units
    (float64) and ``prediction``, the graph's own answer (float32); ordered by day, then keys."""
    table = pa.table(
        {
            **{name: pa.array(values, pa.string()) for name, values in held.columns.items()},
            date_field: pa.array(held.days.astype(np.int32)).cast(pa.date32()),
            "actual": pa.array(held.actual),
            "prediction": pa.array(graph.sales),
        }
    )
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
