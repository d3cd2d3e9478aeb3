"""Runs a version's model on rows: one outcome a row, whatever the model raises.

1. Rows are run as one padded batch (``scoring.arrays``), which is all that good rows ever see.
2. Where the model raises, the rows at fault are those on which it raises when they are run alone. They
   are looked for in parts, an eighth of the rows, then an eighth of that, and one by one once more than
   a quarter of the parts have failed: a part that runs holds none, and a run that fails is dear
   (measured: 80 µs, where the same row running takes 10). These runs are not padded, and their outputs
   are thrown away: no answer's bits come from one.
3. The rows that are left are run again, padded, and rejected are the rows at fault only.
4. Where no row is at fault alone, but all together are, the rows are halved, padded, until they run or
   stand alone.

A contract says that N is dynamic, so a row can be run alone; a version with which it cannot is not
admitted (``scoring.golden``).
"""

from collections.abc import Iterator, Mapping, Sequence

from schemas.codec import Row
from schemas.rejection import Reason, Rejected
from scoring.arrays import OutputRow, WrongOutput
from scoring.model import Array
from scoring.snapshot import LoadedVersion

PARTS = 8

MANY = PARTS // 4
"""If more parts than this fail, smaller ones would as well."""

Outcome = OutputRow | Rejected


def run_rows(version: LoadedVersion, rows: Sequence[Row]) -> list[Outcome]:
    """One outcome a row, in their order. Raises MemoryError only: the process is in trouble then."""
    feeds: Mapping[str, Array] = {}
    try:
        feeds = version.gather(rows)
        tensors = version.model.run(feeds, version.output_tensors)
    except MemoryError:
        raise  # not the fault of a row, and the caller must know
    except Exception as error:  # noqa: BLE001 - whatever a model raises, only its rows pay for it
        return [_failed(error)] if len(rows) == 1 else _run_apart(version, rows, feeds)
    try:
        return version.read_outputs(tensors, len(rows))
    except WrongOutput as wrong:
        return [Rejected(Reason.MODEL_FAILED, str(wrong))] * len(rows)


def _run_apart(
    version: LoadedVersion, rows: Sequence[Row], feeds: Mapping[str, Array]
) -> list[Outcome]:
    step = -(-len(rows) // PARTS)
    faults = dict(_faults(version, feeds, 0, len(rows), step)) if feeds else {}
    if not faults:
        half = len(rows) // 2
        return run_rows(version, rows[:half]) + run_rows(version, rows[half:])
    rest = [row for place, row in enumerate(rows) if place not in faults]
    outcomes = iter(run_rows(version, rest) if rest else ())
    return [faults[place] if place in faults else next(outcomes) for place in range(len(rows))]


def _faults(
    version: LoadedVersion, feeds: Mapping[str, Array], first: int, last: int, step: int
) -> Iterator[tuple[int, Rejected]]:
    """The places from ``first`` to before ``last`` where the model raises on a row alone."""
    failed: list[tuple[int, Exception]] = []
    for begin in range(first, last, step):
        part = {name: array[begin : min(begin + step, last)] for name, array in feeds.items()}
        try:
            version.model.run(part, version.output_tensors)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            failed.append((begin, error))
    if step == 1:
        yield from ((place, _failed(error)) for place, error in failed)
        return
    smaller = 1 if len(failed) > MANY else -(-step // PARTS)
    for begin, _ in failed:
        yield from _faults(version, feeds, begin, min(begin + step, last), smaller)


def _failed(error: Exception) -> Rejected:
    return Rejected(Reason.MODEL_FAILED, f"the model failed on this row: {error}")
