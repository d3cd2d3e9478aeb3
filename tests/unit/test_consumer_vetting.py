"""Vetting: a model that hangs, crashes or takes too much costs a process, and never this one."""

import os
import platform
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pytest

from consumer import vetting
from consumer.memory import MIB
from consumer.rungs import Again, Bundle, NotAdmitted, Rung
from consumer.vetting import NICENESS, Overtaken, Trial
from consumer.vetting_child import Verdict
from schemas.manifest import GOLDEN_NAME, MODEL_NAME, decode_manifest
from tests.bundles import make_bundle
from tests.fleet import LIMIT_SECONDS, wait_for
from tests.hostile import hostile_of

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PLENTY = 64 * 1024 * MIB


def _good(table_bytes: int = 400) -> Bundle:
    manifest, files = make_bundle("m", 1.5, table_bytes=table_bytes)
    return Bundle("sha256:good", manifest, files[MODEL_NAME], files[GOLDEN_NAME])


def _hostile(kind: str) -> Bundle:
    made = hostile_of("m", kind, random.Random(3))
    manifest = decode_manifest(made.files["manifest.json"])
    return Bundle(made.digest, manifest, made.files[MODEL_NAME], made.files[GOLDEN_NAME])


def _judge(
    trial: Trial,
    bundle: Bundle,
    seconds: float = 20.0,
    address_bytes: int = 4_096 * MIB,
    room_bytes: int = PLENTY,
    wanted: Callable[[], bool] = lambda: True,
) -> int:
    return trial.judge(
        bundle,
        seconds=seconds,
        address_bytes=address_bytes,
        room_bytes=room_bytes,
        batch_size=64,
        wanted=wanted,
    )


def _falls(bundle: Bundle, **how: float) -> NotAdmitted:
    with Trial() as trial, pytest.raises(NotAdmitted) as fallen:
        _judge(trial, bundle, **how)  # type: ignore[arg-type]
    assert not _is_there(_pid(trial))
    return fallen.value


def _pid(trial: Trial) -> int:
    return trial._sandbox.pid


def _is_there(pid: int) -> bool:
    """Whether a process of this id is there, dead and not waited for or alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def hanging() -> Iterator[tuple[Trial, list[NotAdmitted]]]:
    """A trial whose model hangs, judged on another thread; what it fell from comes into the list."""
    ends: list[NotAdmitted] = []
    with Trial() as trial:

        def judge() -> None:
            with pytest.raises(NotAdmitted) as fallen:
                _judge(trial, _hostile("hang"), LIMIT_SECONDS)
            ends.append(fallen.value)

        thread = threading.Thread(target=judge)
        thread.start()
        wait_for("the trial", lambda: _is_trying(_pid(trial)))
        yield trial, ends
        if not ends:
            os.kill(_pid(trial), signal.SIGKILL)
        thread.join(LIMIT_SECONDS)


def _limits_of(pid: int) -> dict[str, list[str]]:
    """The soft and the hard limits of a process by name."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


def _is_trying(pid: int) -> bool:
    """Whether the process has the job in hand: the last limit is set."""
    return _limits_of(pid)["Max address space"][0] != "unlimited"


def test_a_good_model_passes_and_says_what_it_will_take() -> None:
    """What it had resident is at least the table of the graph, and not the whole process."""
    with Trial() as trial:
        growth = _judge(trial, _good(table_bytes=20 * MIB))
    if sys.platform == "linux":
        assert 20 * MIB <= growth <= 100 * MIB
    assert not _is_there(_pid(trial))


def test_a_model_that_hangs_is_stopped_at_the_limit() -> None:
    """The reason says the limit and its setting, and the process is gone."""
    fallen = _falls(_hostile("hang"), seconds=1.0)
    assert (fallen.rung, fallen.again) == (Rung.VET, Again.STRIKE)
    assert "timed out" in fallen.reason
    assert "within 1 s (consumer.vet_timeout_ms)" in fallen.reason


class BusyMachine:
    """A clock, and a sandbox on it that has its verdict after 40 s, in ``held_up_share`` of which it
    was not let run."""

    def __init__(self, held_up_share: float) -> None:
        self.now = 0.0
        self._share = held_up_share
        self._lines = [b"\n", msgspec.json.encode(Verdict(growth=7)) + b"\n"]

    def monotonic(self) -> float:
        return self.now

    def hand_over(self, parts: Iterable[bytes]) -> None:
        """Taken."""

    def listen(self, seconds: float) -> bytes | None:
        self.now += 1.0
        is_due = len(self._lines) == 2 or self.now >= 40.0
        return self._lines.pop(0) if is_due else None

    def held_up(self) -> float:
        return self.now * self._share

    def close(self) -> None:
        """Nothing runs."""

    def trial(self, monkeypatch: pytest.MonkeyPatch) -> Trial:
        """A trial in this sandbox, by this clock."""
        monkeypatch.setattr(vetting, "Sandbox", lambda *_, **__: self)
        monkeypatch.setattr(vetting, "time", self)
        return Trial()


@pytest.mark.parametrize(
    ("held_up_share", "seconds", "passes"),
    [(0.9, 20.0, True), (0.1, 20.0, False), (0.9, 10.0, True), (0.9, 5.0, False)],
)
def test_time_without_a_processor_is_not_held_against_a_model(
    monkeypatch: pytest.MonkeyPatch, held_up_share: float, seconds: float, passes: bool
) -> None:
    """Up to five times its limit: a machine that is busy for ever must not try one for ever."""
    machine = BusyMachine(held_up_share)
    trial = machine.trial(monkeypatch)
    if passes:
        assert _judge(trial, _good(), seconds=seconds) == 7
    else:
        with pytest.raises(NotAdmitted, match="timed out"):
            _judge(trial, _good(), seconds=seconds)


@pytest.mark.parametrize(("held_up_share", "is_judged"), [(0.95, True), (0.5, False)])
def test_what_is_held_up_is_not_overtaken_for_that(
    monkeypatch: pytest.MonkeyPatch, held_up_share: float, is_judged: bool
) -> None:
    """A good model has its verdict after 2 s of its own, whatever the log names in the meantime."""
    trial = BusyMachine(held_up_share).trial(monkeypatch)
    if is_judged:
        assert _judge(trial, _good(), wanted=lambda: False) == 7
    else:
        with pytest.raises(Overtaken):
            _judge(trial, _good(), wanted=lambda: False)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot choose a core")
def test_a_sandbox_knows_that_a_busy_machine_holds_it_up(
    hanging: tuple[Trial, list[NotAdmitted]],
) -> None:
    """Another process that is always busy on its core gets the time, and the trial is not blamed."""
    trial, _ = hanging
    core = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            os.sched_setaffinity(busy.pid, {core})
            os.sched_setaffinity(_pid(trial), {core})
            before = trial._sandbox.held_up()
            wait_for("time held up", lambda: trial._sandbox.held_up() > before + 1.0)
        finally:
            busy.kill()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="others do not trap")
def test_a_model_that_crashes_is_named_with_its_signal() -> None:
    """The smallest integer by -1 ends onnxruntime: a strike."""
    fallen = _falls(_hostile("crash"))
    assert (fallen.rung, fallen.again) == (Rung.VET, Again.STRIKE)
    assert "SIGFPE" in fallen.reason


def test_a_model_that_asks_for_many_gigabytes_falls_at_its_address_space() -> None:
    """The reason says the limit and its setting; it is the model's own fault, for ever."""
    fallen = _falls(_hostile("allocation"), address_bytes=2_048 * MIB)
    assert (fallen.rung, fallen.again) == (Rung.VET, Again.NEVER)
    assert "2048 MiB of address space that consumer.vet_megabytes allows" in fallen.reason


def test_a_model_that_asks_for_more_than_is_left_falls_from_memory() -> None:
    """A good one as well; that may be mended."""
    fallen = _falls(_good(table_bytes=30 * MIB), room_bytes=20 * MIB)
    assert (fallen.rung, fallen.again) == (Rung.MEMORY, Again.MENDED)


def test_a_rung_that_it_falls_from_comes_through_with_its_reason() -> None:
    """What the process says is believed."""
    fallen = _falls(_hostile("not a number"))
    assert (fallen.rung, fallen.again) == (Rung.GOLDEN, Again.NEVER)
    assert "golden vector" in fallen.reason


@on_linux
@pytest.mark.parametrize(
    ("number", "again", "says"),
    [
        (signal.SIGSEGV, Again.STRIKE, "it crashed the process that tried it with SIGSEGV"),
        (signal.SIGKILL, Again.KILLED, "ended from outside with SIGKILL"),
        (signal.SIGTERM, Again.KILLED, "ended from outside with SIGTERM"),
        (signal.SIGXCPU, Again.STRIKE, "it timed out"),
    ],
)
def test_a_signal_says_whose_fault_it_was(
    hanging: tuple[Trial, list[NotAdmitted]], number: signal.Signals, again: Again, says: str
) -> None:
    """A crash is the model's; what somebody else kills says nothing of it."""
    trial, ends = hanging
    os.kill(_pid(trial), number)
    wait_for("an end", lambda: ends)
    assert (ends[0].rung, ends[0].again) == (Rung.VET, again)
    assert says in ends[0].reason


@on_linux
def test_the_process_has_taken_from_itself_what_it_does_not_need(
    hanging: tuple[Trial, list[NotAdmitted]],
) -> None:
    """No core, no more files or sockets, little to write, addresses and time limited, first to go."""
    trial, _ = hanging
    limits = _limits_of(_pid(trial))
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"] == ["0", "0"]
    assert limits["Max file size"] == ["65536", "65536"]
    assert limits["Max address space"] == [str(4_096 * MIB)] * 2
    assert limits["Max cpu time"] == ["121", "122"]
    assert Path(f"/proc/{_pid(trial)}/oom_score_adj").read_text().strip() == "1000"
    assert os.getpgid(_pid(trial)) == _pid(trial)
    assert os.getpriority(os.PRIO_PROCESS, _pid(trial)) == NICENESS == 19


def test_where_nothing_answers_it_steps_back_for_nobody() -> None:
    """It is as nice as the thread that started it."""
    with Trial(beside_answers=False) as trial:
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, _pid(trial)) == ours


@on_linux
def test_it_inherits_neither_credentials_nor_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its own pipes, its job and what it reads of itself are open, and no secret is in reach."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    secret, other_end = os.pipe()
    os.set_inheritable(secret, True)
    try:
        with Trial() as trial:
            name = Path(f"/proc/{_pid(trial)}/comm")
            wait_for("its start", lambda: name.read_text().startswith("python"))
            assert b"do-not-tell" not in Path(f"/proc/{_pid(trial)}/environ").read_bytes()
            ours = os.readlink(f"/proc/self/fd/{secret}")
            theirs = [os.readlink(each) for each in Path(f"/proc/{_pid(trial)}/fd").iterdir()]
            assert ours not in theirs
    finally:
        os.close(secret)
        os.close(other_end)


def test_what_nobody_wants_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once, since a good model is nearly done; but it does not keep the next one waiting."""
    monkeypatch.setattr("consumer.vetting.PATIENCE_SECONDS", 0.2)
    with Trial() as trial, pytest.raises(Overtaken):
        _judge(trial, _hostile("hang"), 60.0, wanted=lambda: False)
    assert not _is_there(_pid(trial))


def test_a_good_model_that_is_overtaken_is_still_judged() -> None:
    """A log that names another version every moment does not keep each from its verdict."""
    with Trial() as trial:
        _judge(trial, _good(), wanted=lambda: False)


def test_a_process_that_got_no_job_is_ended_too() -> None:
    """The fetch fell after it was started."""
    with Trial() as trial:
        assert _is_there(_pid(trial))
    assert not _is_there(_pid(trial))


@on_linux
def test_it_dies_with_the_consumer(tmp_path: Path) -> None:
    """A consumer that is killed in the middle leaves no process that burns a core."""
    script = tmp_path / "parent.py"
    script.write_text(
        "from tests.unit.test_consumer_vetting import Trial, _hostile, _judge, _pid\n"
        "trial = Trial()\n"
        "print(_pid(trial), flush=True)\n"
        "_judge(trial, _hostile('hang'), 600.0)\n"
    )
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for("the trial", lambda: _is_trying(pid))
    parent.kill()
    parent.wait()
    wait_for("its end", lambda: not _is_there(pid) or _state_of(pid) == "Z")


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the machine's trouble, and says nothing of the model."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NotAdmitted, match="no process could be started") as fallen:
        Trial()
    assert (fallen.value.rung, fallen.value.again) == (Rung.VET, Again.MENDED)


def test_a_process_that_ends_without_a_verdict_is_a_strike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its exit code is told, and the last line that it said."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho first >&2\necho out of luck >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    fallen = _falls(_good())
    assert (fallen.rung, fallen.again) == (Rung.VET, Again.STRIKE)
    assert fallen.reason == "the process that tried it ended with code 7: out of luck"


@on_linux
def test_a_full_disk_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes cannot be handed over: that may be mended, and the end of the process hides nothing."""
    monkeypatch.setattr(os, "memfd_create", lambda *_: os.open("/dev/full", os.O_RDWR))
    with Trial() as trial, pytest.raises(NotAdmitted, match="No space left") as fallen:
        _judge(trial, _good())
    assert (fallen.value.rung, fallen.value.again) == (Rung.VET, Again.MENDED)
    assert not _is_there(_pid(trial))
