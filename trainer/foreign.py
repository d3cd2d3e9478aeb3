"""Foreign models: a bundle of an ONNX graph that another tool trained and exported.

    bytes → what the runtime can run → contract bound to the graph → golden data → proof → bundle

Rules:

1. Every row of the golden data is answered here in the way a consumer answers (``scoring``): decode,
   gather, pad, run, read. A row without an answer ends it.
2. An answer must not depend on its batch: batches of 1, 7 and 64 give the same bits as those of 256.
3. Where the data holds the pipeline's predictions, each of them must be met: for every row and output
   ``|graph - pipeline| <= tolerance * (1 + |pipeline|)``. That is the bundle's parity, its difference
   stated as a share of ``1 + |pipeline|``, and the predictions become the golden vectors' outputs.
4. Where the data holds what came, the answers are measured by it (``trainer.foreign_evidence``).
5. Without predictions the golden vectors hold what the graph says of itself, and the manifest has no
   parity: nothing was proven but that consumers compute what this machine did.
6. Consumers allow twice the tolerance, so that a machine of another numeric class may round otherwise.

Nothing is stored, and the clock is an argument.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
import onnxruntime

from adapters.onnx_model import numeric_class, runtime_limits, whole_model
from schemas.contract import Contract
from schemas.errors import ModelwireError, RefusedByRule
from schemas.evidence import ForeignEvidence, encode_evidence
from schemas.manifest import (
    CARD_NAME,
    CARD_PAGE_NAME,
    EVIDENCE_NAME,
    GOLDEN_NAME,
    MODEL_NAME,
    File,
    Lineage,
    Manifest,
    Parity,
    Source,
    Tolerance,
    digest_of,
)
from schemas.rejection import Rejected
from scoring.arrays import OutputRow
from scoring.golden import check_golden, check_independence
from scoring.runs import run_rows
from scoring.snapshot import LoadedVersion, load
from trainer.binding import bind
from trainer.card_page import page_of_text
from trainer.contract_file import WrittenContract
from trainer.foreign_card import model_card
from trainer.foreign_evidence import evidence_of_golden
from trainer.foreign_golden import Golden, choose_golden, evenly
from trainer.golden_data import GoldenData
from trainer.signature import Signature, signature_of

CONTRACT_FILE_NAME = "contract.toml"
"""The contract file as it was written, kept in the bundle."""

BATCH = 256
OTHER_BATCHES = (1, 7, 64)
ROWS_IN_OTHER_BATCHES = 448
"""Spread over the data; each batch of one row is run as 64, so all of a long file would take minutes."""

A_FEW = 0.05
"""Share of rows up to which a difference looks like one of rounding: rows on a tree's threshold. LightGBM
keeps thresholds in float64, and its converter rounds them to the nearest float32: of 200,000 rows of
noise two fell on the other side of one (300 trees), by a hundredth of the prediction. None did, for three
seeds, once training saw multiples of 1/1024: the middle between two of them is a float32 itself."""


@dataclass(frozen=True)
class ForeignModel:
    """A graph that fits its contract, loaded as a consumer loads it."""

    content: bytes
    written: WrittenContract
    signature: Signature
    version: LoadedVersion

    @property
    def contract(self) -> Contract:
        """What it reads and gives."""
        return self.version.contract


@dataclass(frozen=True)
class ForeignBundle:
    """A manifest, the content of each file that it names, and what stands behind them."""

    manifest: Manifest
    files: dict[str, bytes]
    rows: int
    golden: Golden
    evidence: ForeignEvidence | None


def open_foreign(content: bytes, written: WrittenContract) -> ForeignModel:
    """The model, once the runtime takes it and its graph is what the contract file says.

    Raises ModelwireError for the graph, UsageProblem for the contract file.
    """
    whole = whole_model(content)
    whole.check_runtime(runtime_limits())
    signature = signature_of(content)
    contract = bind(written, signature)
    model = whole.load()
    model.check_contract(contract)
    return ForeignModel(content, written, signature, load(1, "", contract, model))


def make_bundle(
    foreign: ForeignModel,
    data: GoldenData,
    *,
    tolerance: float,
    created_at: datetime,
    sources: tuple[Source, ...] = (),
    card: bytes | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> ForeignBundle:
    """Proves what can be proven of the model and assembles its bundle.

    Raises ModelwireError where a row has no answer, RefusedByRule where answers depend on their batch
    or differ from the pipeline's.
    """
    count = len(data.rows)
    progress(f"answering {count:,} rows")
    answers = _answers(foreign.version, data)
    progress(f"answering again in batches of {', '.join(map(str, OTHER_BATCHES))}")
    _check_batches(foreign.version, data, answers)
    parity = None if data.expected is None else _prove(foreign.contract, data, answers, tolerance)
    allowed = Tolerance(absolute=2 * tolerance, relative=2 * tolerance)
    golden = choose_golden(foreign.contract, data, answers)
    problem = check_golden(foreign.version, golden.vectors, allowed) or check_independence(
        foreign.version, golden.vectors
    )
    if problem is not None:
        raise RefusedByRule(problem, hint="no consumer would admit it; nothing was written")
    model = foreign.written.tables.model
    evidence = evidence_of_golden(data, answers)
    if card is None:
        card = model_card(
            model, foreign.signature, foreign.contract, parity, sources, golden, evidence
        )
    files = {
        MODEL_NAME: foreign.content,
        GOLDEN_NAME: b"".join(msgspec.json.encode(each) + b"\n" for each in golden.vectors),
        CONTRACT_FILE_NAME: foreign.written.text.encode(),
        CARD_NAME: card,
        CARD_PAGE_NAME: page_of_text(model, card),
    }
    if evidence is not None:
        files[EVIDENCE_NAME] = encode_evidence(evidence)
    manifest = Manifest(
        model=model,
        created_at=created_at,
        contract=foreign.contract,
        files={name: File(digest_of(each), len(each)) for name, each in files.items()},
        graph=whole_model(foreign.content).graph,
        tolerance=allowed,
        parity=parity,
        lineage=_lineage(foreign, sources) if sources else None,
    )
    return ForeignBundle(manifest, files, count, golden, evidence)


def _answers(version: LoadedVersion, data: GoldenData) -> list[OutputRow]:
    answers = []
    for begin in range(0, len(data.rows), BATCH):
        outcomes = run_rows(version, data.rows[begin : begin + BATCH])
        for index, outcome in enumerate(outcomes, start=begin):
            if isinstance(outcome, Rejected):
                raise ModelwireError(
                    f"{data.where(index)} has no answer: {outcome.detail}",
                    hint="mend the model, or narrow the field's limits so that no such request is taken",
                )
            answers.append(outcome)
    return answers


def _check_batches(version: LoadedVersion, data: GoldenData, answers: list[OutputRow]) -> None:
    chosen = evenly(len(data.rows), ROWS_IN_OTHER_BATCHES)
    for size in OTHER_BATCHES:
        for begin in range(0, len(chosen), size):
            batch = chosen[begin : begin + size]
            outcomes = run_rows(version, [data.rows[index] for index in batch])
            for index, outcome in zip(batch, outcomes, strict=True):
                if outcome != answers[index]:
                    raise RefusedByRule(
                        f"{data.where(index)} gives {_said(answers[index])} in a batch of {BATCH} and "
                        f"{_said(outcome)} in one of {size}; an answer must not depend on its batch",
                        hint="look for a mean, a sum or a normalization over the rows of a batch, and "
                        "export the model for inference",
                    )


def _said(outcome: OutputRow | Rejected) -> str:
    if isinstance(outcome, Rejected):
        return outcome.detail
    return msgspec.json.encode(outcome).decode()


def _prove(
    contract: Contract, data: GoldenData, answers: list[OutputRow], tolerance: float
) -> Parity:
    assert data.expected is not None
    names = [output.name for output in contract.outputs]
    found = np.array([[float(getattr(each, name)) for name in names] for each in answers])
    wanted = np.column_stack([data.expected[name] for name in names])
    difference = np.abs(found - wanted) / (1 + np.abs(wanted))
    largest = float(difference.max())
    if largest > tolerance:
        at, output = np.unravel_index(np.argmax(difference), difference.shape)
        beyond = int((difference > tolerance).any(axis=1).sum())
        raise RefusedByRule(
            f"the graph is not the model that made the predictions: {beyond:,} of {len(answers):,} rows "
            f"differ by more than {tolerance:g} × (1 + |prediction|). The worst: {data.where(int(at))}, "
            f"{names[output]}: the pipeline says {wanted[at, output]:.9g}, the graph "
            f"{found[at, output]:.9g}, for {msgspec.json.encode(data.inputs[int(at)]).decode()}",
            hint=_hint_of_difference(beyond / len(answers)),
        )
    return Parity(
        rows=len(answers),
        space="identity",
        max_difference=largest,
        limit=tolerance,
        onnxruntime=onnxruntime.__version__,
        numeric_class=numeric_class(),
    )


def _hint_of_difference(share: float) -> str:
    if share > A_FEW:
        return (
            "see that the contract lists the columns in the order of training, and that the pipeline "
            "changes neither inputs nor predictions outside the graph. Nothing was written"
        )
    return (
        "a few rows differ where a tree's threshold was rounded to float32: train on features that are "
        "float32 and rounded to a power of two, such as 1/1024, and convert again; --tolerance sets the "
        "limit. Nothing was written"
    )


def _lineage(foreign: ForeignModel, sources: tuple[Source, ...]) -> Lineage:
    """What is known of how the model was made: its data, and the tool that wrote the graph."""
    producer = foreign.signature.producer
    return Lineage(
        sources=sources,
        config=foreign.written.text,
        preset="imported",
        seed=0,
        cutoff="",
        packages={producer: foreign.signature.producer_version} if producer else {},
        python="",
    )
