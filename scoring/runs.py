"""Runs a version's model on rows: one outcome a row, whatever the model raises or gives.

1. Rows are run as one padded batch (``scoring.arrays``), which is all that good rows ever see.
2. Where the model raises, the rows at fault are those on which it raises when they are run alone. They
   are looked for in parts, an eighth of the rows, then an eighth of that, and one by one once more than
   a quarter of the parts have failed: a part that runs holds none, and a run that fails is dear
   (measured: 80 µs, where the same row running takes 10). These runs are not padded, and their outputs
   are thrown away: no answer's bits come from one.
3. Where it gives a tensor that is not what the contract says, one row may be at fault as well: a graph
   that drops rows (Compress, NonZero) gives too few for all. The rows at fault are looked for in the
   same way, and are those for which the outputs are wrong when they are run alone. Alone is twice over
   here: a Squeeze without axes takes a single row's N away, and that is no fault of the row.
4. The rows that are left are run again, padded, and rejected are the rows at fault only.
5. Where no row is at fault alone, but all together are, the rows are halved, padded, until they run or
   stand alone.

A tensor that is always wrong is told by 16 runs, of twice the rows in all, and not by one for each row:
every eighth is wrong, and in the very shape that its first row gives when it is repeated in place of the
others. All rows are rejected then. Good rows among the bad show: of 64 rows one of which is dropped 63
are left, and a row repeated leaves 64 or none. (They would not in a graph that gives nothing at all once
one row is bad, and has a bad one first in every eighth; rows are no business of each other.) With few
bad rows an eighth is soon found that is right, which ends it. What stays dear are bad rows in more than
a quarter of the eighths with good ones between: a run for each row in them (measured: of 512 rows, half
of them dropped, 13 ms; 71 where half raise; 0.9 where one is dropped, 0.6 where all are).

Only lengths tell a row that is dropped. Where a graph gives nothing for one row and two entries for
another, the sum is right, and the rows between them get each other's outputs, unseen.

A contract says that N is dynamic, so a row can be run alone; a version with which it cannot is not
admitted (``scoring.golden``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from schemas.codec import Row
from schemas.rejection import Reason, Rejected
from scoring.arrays import OutputRow, WrongOutput, check_outputs
from scoring.model import Array
from scoring.snapshot import LoadedVersion

PARTS = 8

MANY = PARTS // 4
"""If more parts than this fail, smaller ones would as well."""

Feeds = Mapping[str, Array]

Outcome = OutputRow | Rejected

_Trial = Callable[[Feeds], Exception | None]
"""Runs some rows, and says what is wrong with the run."""


def run_rows(version: LoadedVersion, rows: Sequence[Row]) -> list[Outcome]:
    """One outcome a row, in their order. Raises MemoryError only: the process is in trouble then."""
    feeds: Feeds = {}
    try:
        feeds = version.gather(rows)
        tensors = version.model.run(feeds, version.output_tensors)
    except MemoryError:
        raise  # not the fault of a row, and the caller must know
    except Exception as error:  # noqa: BLE001 - whatever a model raises, only its rows pay for it
        if len(rows) == 1:
            return [_failed(error)]
        return _run_apart(version, rows, feeds, partial(_raised, version))
    try:
        return version.read_outputs(tensors, len(rows))
    except WrongOutput as wrong:
        if len(rows) == 1:
            return [_failed(wrong)]
        if _is_always_wrong(version, feeds, len(rows)):
            said = f"the model failed on every row alike: {wrong}"
            return [Rejected(Reason.MODEL_FAILED, said)] * len(rows)
    return _run_apart(version, rows, feeds, partial(_raised_or_wrong, version))


def _run_apart(
    version: LoadedVersion, rows: Sequence[Row], feeds: Feeds, trial: _Trial
) -> list[Outcome]:
    faults = dict(_faults(trial, feeds, 0, len(rows), _eighth(len(rows)))) if feeds else {}
    if not faults:
        half = len(rows) // 2
        return run_rows(version, rows[:half]) + run_rows(version, rows[half:])
    rest = [row for place, row in enumerate(rows) if place not in faults]
    outcomes = iter(run_rows(version, rest) if rest else ())
    return [faults[place] if place in faults else next(outcomes) for place in range(len(rows))]


def _faults(
    trial: _Trial, feeds: Feeds, first: int, last: int, step: int
) -> Iterator[tuple[int, Rejected]]:
    """The places from ``first`` to before ``last`` where the trial of a row alone fails."""
    failed: list[tuple[int, Exception]] = []
    for begin in range(first, last, step):
        error = trial(_part(feeds, begin, min(begin + step, last)))
        if error is not None:
            failed.append((begin, error))
    if step == 1:
        yield from ((place, _failed(error)) for place, error in failed)
        return
    smaller = 1 if len(failed) > MANY else _eighth(step)
    for begin, _ in failed:
        yield from _faults(trial, feeds, begin, min(begin + step, last), smaller)


def _raised(version: LoadedVersion, feeds: Feeds) -> Exception | None:
    """The trial of rule 2."""
    try:
        version.model.run(feeds, version.output_tensors)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return error
    return None


def _raised_or_wrong(version: LoadedVersion, feeds: Feeds) -> Exception | None:
    """The trial of rule 3."""
    count = _count(feeds)
    if count == 1:
        feeds, count = _repeated(feeds, 2), 2
    try:
        tensors = version.model.run(feeds, version.output_tensors)
        check_outputs(version.contract, tensors, count)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return error
    return None


def _is_always_wrong(version: LoadedVersion, feeds: Feeds, count: int) -> bool:
    """Whether each eighth of ``count`` rows has wrong outputs, of the shapes its first row has alone."""
    step = _eighth(count)
    return step > 1 and all(
        _is_wrong_alike(version, _part(feeds, begin, min(begin + step, count)))
        for begin in range(0, count, step)
    )


def _is_wrong_alike(version: LoadedVersion, feeds: Feeds) -> bool:
    wrong = _raised_or_wrong(version, feeds)
    if not isinstance(wrong, WrongOutput):
        return False
    repeated = _raised_or_wrong(version, _repeated(feeds, _count(feeds)))
    # The sentence names the tensor, its type and its shape; N is the same in both.
    return isinstance(repeated, WrongOutput) and str(repeated) == str(wrong)


def _count(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def _part(feeds: Feeds, first: int, last: int) -> Feeds:
    return {name: array[first:last] for name, array in feeds.items()}


def _repeated(feeds: Feeds, times: int) -> Feeds:
    """The first row, so many times."""
    return {name: array[:1].repeat(times, axis=0) for name, array in feeds.items()}


def _eighth(count: int) -> int:
    return -(-count // PARTS)


def _failed(error: Exception) -> Rejected:
    return Rejected(Reason.MODEL_FAILED, f"the model failed on this row: {error}")
