"""The bundle: from a dataset to everything that a release needs, or nothing at all.

Read the panel → train, by backtest → export → prove the graph (``trainer.parity``; a refusal ends it
here) → evidence, holdout rows, golden vectors, cards → manifest. Nothing is stored: that is for the
caller, once all of it exists. The clock is an argument, and only the manifest's ``created_at`` holds it,
so the same data, configuration and packages give the same ``model.onnx``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from io import BytesIO

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

from adapters.object_store import S3Settings
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
from schemas.errors import RefusedByRule
from schemas.evidence import Evidence, Leakage, encode_evidence
from schemas.manifest import (
    CARD_NAME,
    CARD_PAGE_NAME,
    EVIDENCE_NAME,
    GOLDEN_NAME,
    HOLDOUT_NAME,
    MODEL_NAME,
    File,
    Holdout,
    Lineage,
    Manifest,
    Parity,
    digest_of,
)
from trainer.card import Subject, model_card
from trainer.card_page import card_page
from trainer.dataset import (
    HOLDOUT_COLUMNS,
    IN_HORIZON,
    KNOWN_SERIES,
    SALES,
    SALES_P10,
    SALES_P90,
    Dataset,
    DatasetFile,
)
from trainer.estimator import Fitted, Forecaster, Preset, fit
from trainer.evaluation import HeldOut, held_out
from trainer.evidence import evidence_of
from trainer.examples import examples_of
from trainer.golden import TOLERANCE, check_tolerance, golden_lines, golden_requests
from trainer.graph import export
from trainer.importance import importance_of_training
from trainer.keys import KeyKind
from trainer.leakage import leakage_test
from trainer.lineage import lineage_of
from trainer.options import MEMORY_MB
from trainer.panel import MAX_KEY_LENGTH, Panel, day_of
from trainer.parity import BATCHES, LIMIT, Agreement, cases, compare, run_graph
from trainer.reading import read_panel
from trainer.requests import Forecasts, Requests
from trainer.sources import Sources, open_sources
from trainer.training import Trained, develop

LEAKAGE_ROWS = 20_000
"""Training rows of the leakage test, which fits twice. Fewer rows hide no leak: a bit would differ."""

SERVED_BATCH = 256
"""Rows of a batch whose answers stand in the holdout: a multiple of 64, as a consumer has it."""


@dataclass(frozen=True)
class Bundle:
    """A manifest and the content of each file that it names; ``adapters.bundles`` stores it."""

    manifest: Manifest
    files: dict[str, bytes]


@dataclass(frozen=True)
class Order:
    """What is asked of a training. Without a ``cutoff`` the dataset's ``holdout`` decides."""

    preset: Preset = Preset.FULL
    cutoff: date | None = None
    seed: int = 0
    memory_mb: int = MEMORY_MB


def train_bundle(
    file: DatasetFile,
    order: Order,
    *,
    created_at: datetime,
    s3: S3Settings | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Trains on a dataset and assembles the bundle. ``progress`` hears one line for each step.

    Raises ModelwireError for a panel that cannot be used, RefusedByRule where parity fails.
    """
    dataset = file.dataset
    with open_sources(file, s3) as sources:
        panel = read_aloud(file, sources, order.cutoff, order.memory_mb, progress)
        if order.preset is Preset.PLAIN and (unread := _unread_by_plain(dataset)):
            progress(f"note: plain reads no covariates: {', '.join(unread)} will change no answer")
        trained = develop(panel, order.preset, dataset.loss, order.seed, progress)
        lineage = lineage_of(
            file,
            sources,
            trained.fitted,
            chosen=trained.backtest.chosen,
            features=trained.forecaster.features,
        )
    again = partial(fit, recipe=trained.fitted.recipe, budget=LEAKAGE_ROWS)
    return assemble(
        file, panel, trained, lineage, again=again, created_at=created_at, progress=progress
    )


def read_aloud(
    file: DatasetFile,
    sources: Sources,
    cutoff: date | None,
    memory_mb: int,
    progress: Callable[[str], None],
) -> Panel:
    """``read_panel``, of which ``progress`` hears what is read and what was found in it."""
    progress(f"reading {', '.join(each.shown for each in sources.panel)}")
    panel = read_panel(file, sources, cutoff=cutoff, memory_mb=memory_mb)
    for note in panel.notes:
        progress(f"note: {note}")
    return panel


def _unread_by_plain(dataset: Dataset) -> list[str]:
    return [name for name in dataset.covariates if name != dataset.closed]


def assemble(
    file: DatasetFile,
    panel: Panel,
    trained: Trained,
    lineage: Lineage,
    *,
    again: Callable[[Panel], Fitted],
    created_at: datetime,
    progress: Callable[[str], None],
) -> Bundle:
    """Exports a forecaster, proves the graph, and puts the evidence beside it.

    ``again`` fits another panel in the same way, for the leakage test.
    """
    dataset = file.dataset
    progress("exporting the graph")
    content = export(trained.forecaster, dataset.date)
    held = held_out(panel)
    progress("comparing the graph with Python")
    proof = prove(trained.forecaster, content, panel, held, dataset.date, lineage.seed)
    progress("looking for leaks")
    leakage = leakage_test(panel, trained.fitted.recipe, again, lineage.seed)
    _refuse_leaks(leakage)
    progress("gathering evidence")
    answers = proof.held_out if len(held) else None
    importance = importance_of_training(trained, held, dataset.date, lineage.seed)
    evidence = evidence_of(panel, trained, held, answers, dataset.slices, importance, leakage)
    contract = contract_of(dataset, trained.forecaster)
    parity = _parity(proof.agreement)
    subject = Subject(dataset, contract, lineage, parity, evidence, panel.cutoff + 1)
    files = {
        MODEL_NAME: content,
        GOLDEN_NAME: proof.golden,
        EVIDENCE_NAME: encode_evidence(evidence),
        CARD_NAME: model_card(subject),
        CARD_PAGE_NAME: card_page(subject, examples_of(panel, trained, held, answers)),
    }
    if len(held):
        files[HOLDOUT_NAME] = _holdout_rows(trained.forecaster, held, proof.held_out, dataset.date)
    manifest = Manifest(
        model=dataset.model,
        created_at=created_at,
        contract=contract,
        files={name: File(digest_of(each), len(each)) for name, each in files.items()},
        graph=graph_of(content),
        tolerance=TOLERANCE,
        parity=parity,
        lineage=lineage,
        holdout=_holdout(evidence),
    )
    return Bundle(manifest=manifest, files=files)


@dataclass(frozen=True)
class Proof:
    """What the comparison of Python and graph gave: ``held_out`` are the graph's own answers."""

    agreement: Agreement
    held_out: Forecasts
    golden: bytes


def prove(
    forecaster: Forecaster,
    content: bytes,
    panel: Panel,
    held: HeldOut,
    date_field: str,
    seed: int,
) -> Proof:
    """Compares the exported ``content`` with the forecaster; RefusedByRule where they differ."""
    model = load_onnx_model(content)
    asked = held.requests if len(held) else stand_ins(panel)
    agreement = compare(model, forecaster, cases(forecaster, asked), date_field)
    golden = golden_requests(forecaster, asked, seed)
    python = forecaster.predict(golden)
    check_tolerance(python, run_graph(model, forecaster, golden, date_field, SERVED_BATCH))
    answers = run_graph(model, forecaster, asked, date_field, SERVED_BATCH)
    return Proof(agreement, answers, golden_lines(forecaster, golden, python, date_field))


def stand_ins(panel: Panel) -> Requests:
    """Requests for every series on the days ahead, with the covariates of the newest known days."""
    shift = -(-panel.horizon // 7) * 7
    earlier = replace(panel, cutoff=max(panel.cutoff - shift, 0))
    known = held_out(earlier, min(panel.cutoff, earlier.cutoff + panel.horizon)).requests
    return Requests(known.columns, known.days + (panel.cutoff - earlier.cutoff), known.covariates)


def contract_of(dataset: Dataset, forecaster: Forecaster) -> Contract:
    """The contract of a forecaster: its keys, the date, then the covariates, which may be left out."""
    keys = forecaster.keys
    fields = [
        _key_field(name, kind, dataset.keys[name])
        for name, kind in zip(keys.names, keys.kinds, strict=True)
    ]
    fields.append(
        Field(
            name=dataset.date,
            type=FieldType.DATE,
            binding=Binding(tensor=dataset.date, dtype=TensorType.INT64),
            description="Day to forecast",
            unit="day",
        )
    )
    for name in forecaster.covariates:
        description = dataset.covariates[name]
        if name in forecaster.numbers:
            fields.append(_number_field(name, description))
        else:
            fields.append(_flag_field(name, description))
    cutoff = day_of(forecaster.cutoff_day)
    unit = dataset.unit
    return Contract(
        fields=tuple(fields),
        outputs=(
            _output(SALES, FieldType.FLOAT32, "Sales on that day, at least 0", unit),
            _output(SALES_P10, FieldType.FLOAT32, "Sales that one day in ten is below", unit),
            _output(SALES_P90, FieldType.FLOAT32, "Sales that one day in ten is above", unit),
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


def _key_field(name: str, kind: KeyKind, description: str) -> Field:
    is_text = kind is KeyKind.TEXT
    return Field(
        name=name,
        type=FieldType.STRING if is_text else FieldType.INT64,
        binding=Binding(tensor=name, dtype=TensorType.STRING if is_text else TensorType.INT64),
        description=f"{description}; an unknown one is answered from a mean",
        max_length=MAX_KEY_LENGTH,
    )


def _flag_field(name: str, description: str) -> Field:
    return Field(
        name=name,
        type=FieldType.BOOL,
        binding=Binding(tensor=name, dtype=TensorType.BOOL),
        description=f"{description}; false where it is null or left out",
        required=False,
        default=False,
        nullable=True,
        null_as=False,
    )


def _number_field(name: str, description: str) -> Field:
    return Field(
        name=name,
        type=FieldType.FLOAT64,
        binding=Binding(tensor=name, dtype=TensorType.FLOAT32),
        description=f"{description}; unknown where it is null or left out",
        required=False,
        nullable=True,
    )


def _output(name: str, kind: FieldType, description: str, unit: str = "") -> Output:
    return Output(name=name, tensor=name, type=kind, description=description, unit=unit)


def _refuse_leaks(leakage: Leakage) -> None:
    leaks = [check.what for check in leakage.checks if not check.same]
    if leaks:
        raise RefusedByRule(
            f"the training saw days that it must not see: {', '.join(leaks)} changed when the days "
            "after were scrambled",
            hint="nothing was written; this is a fault of a feature, not of the data",
        )


def _holdout(evidence: Evidence) -> Holdout | None:
    """What the manifest says of the holdout: the evidence's scores by predictor, over open days."""
    found = evidence.holdout
    if found is None:
        return None
    return Holdout(
        first=found.first,
        last=found.last,
        rows=found.rows,
        metrics={
            name: {
                metric: value
                for metric, value in msgspec.to_builtins(each).items()
                if metric != "rows"
            }
            for name, each in found.scores.items()
        },
    )


def _parity(agreement: Agreement) -> Parity:
    return Parity(
        rows=sum(agreement.rows.values()),
        space="log1p",
        max_difference=agreement.max_difference,
        limit=LIMIT,
        onnxruntime=onnxruntime.__version__,
        numeric_class=numeric_class(),
        batches=BATCHES,
        cases=dict(agreement.rows),
    )


def _holdout_rows(
    forecaster: Forecaster, held: HeldOut, graph: Forecasts, date_field: str
) -> bytes:
    """Raw inputs as the contract names them (keys, the date as date32, flags as bool, numbers with
    nulls), ``actual`` units (float64) and ``prediction``, the graph's own answer (float32); ordered by
    day, then series."""
    requests = held.requests
    columns = {name: pa.array(values) for name, values in requests.columns.items()}
    columns[date_field] = pa.array(requests.days.astype(np.int32)).cast(pa.date32())
    for name in forecaster.covariates:
        values = requests.covariates[name]
        is_number = name in forecaster.numbers
        cells = values.astype(np.float64) if is_number else np.nan_to_num(values) > 0.5
        columns[name] = pa.array(cells, mask=np.isnan(values))
    columns |= zip(HOLDOUT_COLUMNS, (pa.array(held.actual), pa.array(graph.sales)), strict=True)
    buffer = BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()
