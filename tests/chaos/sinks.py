"""Sinks that are killed while answers are written, and sinks that run two at a time."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.fleet import Harness, Instance, wait_for
from tests.kept_answers import QUICK, checked, files_hold, files_of, run_once, start_sink
from tests.written_answers import Scribe, counts, topics_hold


@dataclass(frozen=True)
class Outcome:
    """What came of it. ``lost_puts`` are those that another sink was quicker with, ``at_work`` the sinks
    that had stored a file when they ended.
    """

    answers: int
    files: int
    ends: int
    lost_puts: int
    at_work: int


def kill_sinks(harness: Harness, answers: int, kills: int, seed: int) -> Outcome:
    """Kill a sink that many times while so many forecasts are written, then let one finish."""
    rng = random.Random(seed)
    scribe = Scribe(harness)
    sinks: list[Instance] = []
    with ThreadPoolExecutor(1) as threads:
        for number in range(kills):
            share = answers * (number + 1) // kills - answers * number // kills
            writing = threads.submit(scribe.write, share)
            sink = start_sink(harness, **QUICK)
            sinks.append(sink)
            sink.wait_for_line("audit.start", 60)
            if rng.random() < 0.8:  # the others are killed while they look where to go on
                wanted = rng.randrange(1, 6)
                wait_for(
                    f"{wanted} files of a sink",
                    lambda sink=sink, wanted=wanted: len(sink.lines("audit.stored")) >= wanted,  # type: ignore[misc]
                    60,
                )
            time.sleep(rng.uniform(0, 0.5))  # so that it is anywhere in its work
            sink.kill()
            writing.result()
    return _judged(harness, sinks, kills)


MORE = 100
"""Answers that two sinks are given as long as neither has lost a put."""


def pair_sinks(harness: Harness, answers: int, times: int, seed: int) -> Outcome:
    """Run two sinks at once, so often, while so many forecasts are written in all; end one by a kill."""
    rng = random.Random(seed)
    scribe = Scribe(harness)
    sinks: list[Instance] = []
    for _ in range(times):
        pair = [start_sink(harness, **QUICK) for _ in range(2)]
        sinks += pair
        for sink in pair:
            sink.wait_for_line("audit.reading", 60)
        scribe.write(answers // times)

        def has_lost(pair: list[Instance] = pair) -> bool:
            """Whether one of them came too late, for which they are given something more to store."""
            lost = any(sink.lines("audit.put_lost") for sink in pair)
            if not lost:
                scribe.write(MORE)
            return lost

        wait_for("a put that is lost", has_lost)
        rng.shuffle(pair)
        pair[0].kill()
        assert pair[1].terminate(60) == 0, pair[1].text
    return _judged(harness, sinks, 2 * times)


def _judged(harness: Harness, sinks: list[Instance], ends: int) -> Outcome:
    """Every committed record is in the files once, byte for byte, and the check has nothing to say."""
    run_once(harness)
    kept, wanted = files_hold(harness), topics_hold(harness)
    assert counts(kept) == counts(wanted)
    assert kept == wanted
    said = checked(harness)
    assert said["clean"], said["findings"]
    assert sum(kind["rows"] for kind in said["kinds"]) == sum(counts(wanted).values())
    for sink in sinks:
        assert "Traceback" not in sink.text, sink.text
    return Outcome(
        sum(counts(wanted).values()),
        len(files_of(harness)),
        ends,
        sum(len(sink.lines("audit.put_lost")) for sink in sinks),
        sum(bool(sink.lines("audit.stored")) for sink in sinks),
    )
