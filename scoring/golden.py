"""Golden vectors: does a loaded model give what its training pipeline said it gives?

A version passes through this before it may answer. The vectors' inputs take the very path of a request
(decode, gather, pad, run, read), so what is compared is the answer that a caller would get.

Besides, the first of them is run without padding: N is dynamic by contract, and rows on which a model
fails are looked for one by one (``scoring.runs``).

``check_independence`` asks what padding alone cannot promise: that a row's bits do not depend on its
place in the batch. They do in a graph that reduces (ReduceSum, ReduceMean …) over rows whose length is
no multiple of 4: the sum then begins where the row's memory is aligned, and that moves with its place
(measured: onnxruntime 1.31, rows of 5, 6, 7, 17 and 33 floats; MatMul, Softmax, normalizers, trees and
elementwise operators keep their bits). Such a graph sums by MatMul with ones, or over padded rows.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.codec import Row
from schemas.manifest import GoldenVector, Tolerance
from schemas.rejection import Rejected
from scoring.arrays import BATCH_MULTIPLE, OutputRow, WrongOutput
from scoring.snapshot import LoadedVersion

SHIFTS = range(1, 16)
"""By how many places the rows are moved: every alignment of a 4-byte value in 64 bytes."""


def check_golden(
    version: LoadedVersion, vectors: Sequence[GoldenVector], tolerance: Tolerance
) -> str | None:
    """None where every output lies within the tolerance; else a sentence on the first that does not.

    Lines count from 1. Booleans must be equal. Never raises for what the model does.
    """
    if not vectors:
        return "there are no golden vectors to compare with"
    try:
        rows = _decode(version, vectors)
        outcomes = _score(version, rows)
        _run_alone(version, rows[0])
    except _Unfit as unfit:
        return str(unfit)
    names = [output.name for output in version.contract.outputs]
    for line, (vector, outcome) in enumerate(zip(vectors, outcomes, strict=True), start=1):
        problem = _compare(vector, outcome, names, tolerance)
        if problem is not None:
            return f"golden vector {line}: {problem}"
    return None


def check_independence(version: LoadedVersion, vectors: Sequence[GoldenVector]) -> str | None:
    """None where the vectors give the same bits at any place in the batch; else a sentence."""
    try:
        rows = _decode(version, vectors)
        at_home = [_bits(outcome) for outcome in _score(version, rows)]
        for shift in SHIFTS:
            moved = _score(version, [rows[0]] * shift + rows)[shift:]
            for line, (outcome, home) in enumerate(zip(moved, at_home, strict=True), start=1):
                if _bits(outcome) != home:
                    return (
                        f"golden vector {line} gives {home.decode()} in one place of a batch and "
                        f"{_bits(outcome).decode()} {shift} rows further on; an answer must not "
                        "depend on its batch"
                    )
    except _Unfit as unfit:
        return str(unfit)
    return None


class _Unfit(Exception):
    """The vectors could not be scored; the sentence says why."""


def _decode(version: LoadedVersion, vectors: Sequence[GoldenVector]) -> list[Row]:
    rows: list[Row] = []
    for line, vector in enumerate(vectors, start=1):
        try:
            rows.append(version.decode(bytes(vector.inputs)))
        except Rejected as rejected:
            raise _Unfit(
                f"golden vector {line} is not a request of the contract: {rejected.detail}"
            ) from None
    return rows


def _score(version: LoadedVersion, rows: Sequence[Row]) -> list[OutputRow | Rejected]:
    try:
        tensors = version.model.run(version.gather(rows), version.output_tensors)
        return version.read_outputs(tensors, len(rows))
    except MemoryError:
        raise  # says nothing about the model
    except WrongOutput as wrong:
        raise _Unfit(f"the model does not keep its contract: {wrong}") from None
    except Exception as error:  # noqa: BLE001 - whatever a model raises, it is not fit to answer
        raise _Unfit(f"the model failed on the golden vectors: {error}") from None


def _run_alone(version: LoadedVersion, row: Row) -> None:
    try:
        feeds = {name: array[:1] for name, array in version.gather([row]).items()}
        version.model.run(feeds, version.output_tensors)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise _Unfit(
            f"the model runs on {BATCH_MULTIPLE} rows and fails on one alone: {error}; N must be dynamic"
        ) from None


def _bits(outcome: OutputRow | Rejected) -> bytes:
    """What an answer would hold: equal bytes, equal bits."""
    return (
        outcome.detail.encode() if isinstance(outcome, Rejected) else msgspec.json.encode(outcome)
    )


def _compare(
    vector: GoldenVector, outcome: OutputRow | Rejected, names: list[str], tolerance: Tolerance
) -> str | None:
    if isinstance(outcome, Rejected):
        return outcome.detail
    if set(vector.outputs) != set(names):
        return f"it holds outputs {sorted(vector.outputs)}, the contract says {sorted(names)}"
    for name in names:
        found, golden = getattr(outcome, name), vector.outputs[name]
        if not is_close(found, golden, tolerance):
            return (
                f"{name} is {found!r}, the training pipeline said {golden!r} "
                f"(tolerance {tolerance.absolute:g} + {tolerance.relative:g} × |golden|)"
            )
    return None


def is_close(found: Any, golden: float | int | bool, tolerance: Tolerance) -> bool:
    """Whether an output lies within the tolerance of another; booleans must be equal."""
    if isinstance(found, bool) or isinstance(golden, bool):
        return found is golden
    return bool(abs(found - golden) <= tolerance.absolute + tolerance.relative * abs(golden))
