"""The local stack's decisions: ports, lock files, configuration, what a folder is, what a doctor says."""

import hashlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from modelwire.localstack import doctor, ports
from modelwire.localstack.broker import Data, cluster_id, inspect, server_properties
from modelwire.localstack.doctor import Verdict
from modelwire.localstack.jars import SERVERS, Jar, JarCache, damaged_jars, locked_jars
from modelwire.localstack.processes import ServerProcess
from modelwire.localstack.progress import ToConsole
from modelwire.localstack.s3 import s3proxy_conf
from modelwire.localstack.stack_info import StackInfo, command, read_stack, write_stack
from schemas.errors import ModelwireError

ROOT = Path(__file__).resolve().parents[2]
WHOLE = "#\n#a date\ncluster.id=abc\ndirectory.id=def\nnode.id=1\nversion=1\n"


def an_info(state_dir: Path) -> StackInfo:
    """A stack with three ports."""
    return StackInfo(
        state_dir=state_dir,
        bootstrap_servers="127.0.0.1:20001",
        controller_port=20002,
        s3_endpoint="http://127.0.0.1:20003",
        s3_access_key="modelwire",
        s3_secret_key="hush",
    )


class TestPorts:
    """Which ports are chosen."""

    def test_takes_only_free_ports_and_none_twice(self) -> None:
        """A port that is drawn again or in use is passed over."""
        draws = iter([20_000, 20_000, 20_001, 20_002, 20_003])
        chosen = ports.choose(3, draw=lambda low, high: next(draws), free=lambda p: p != 20_001)
        assert chosen == (20_000, 20_002, 20_003)

    def test_draws_below_the_ports_of_outgoing_connections(self) -> None:
        """A client that reconnects can't be given a stopped server's port as its own."""
        asked: list[tuple[int, int]] = []

        def draw(low: int, high: int) -> int:
            asked.append((low, high))
            return low + len(asked)

        ports.choose(2, draw=draw, free=lambda p: True)
        assert all(1024 < low < high < 32_768 for low, high in asked)

    def test_gives_up_when_nothing_is_free(self) -> None:
        """A machine without a free port gets a message, not an endless loop."""
        with pytest.raises(ModelwireError, match="no free port"):
            ports.choose(1, free=lambda p: False)


class TestLocks:
    """The committed lock files."""

    @pytest.mark.parametrize("server", ["kafka", "s3"])
    def test_name_every_jar_with_a_sha256_and_no_address(self, server: str) -> None:
        """Bytes are fixed; where they come from is open."""
        jars = locked_jars(server)
        assert len(jars) > 20
        assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in jars)
        assert "://" not in (SERVERS / server / "jgo.lock.toml").read_text()

    @pytest.mark.parametrize("server", ["kafka", "s3"])
    def test_belong_to_the_spec_beside_them(self, server: str) -> None:
        """A changed spec without a new lock is found here."""
        spec = (SERVERS / server / "jgo.toml").read_bytes()
        lock = (SERVERS / server / "jgo.lock.toml").read_text()
        assert f'spec_hash = "{hashlib.sha256(spec).hexdigest()[:16]}"' in lock

    def test_agree_on_jars_that_both_servers_use(self) -> None:
        """One cache serves both, so one path has one content."""
        by_path = {jar.path: jar.sha256 for jar in locked_jars("kafka")}
        shared = [jar for jar in locked_jars("s3") if jar.path in by_path]
        assert all(by_path[jar.path] == jar.sha256 for jar in shared)


class TestConfiguration:
    """The files that the servers read."""

    def test_kafka_listens_on_loopback_only(self) -> None:
        """No listener is open to the network."""
        settings = dict(line.split("=", 1) for line in server_properties(20001, 20002).splitlines())
        hosts = re.findall(r"//([^:]*):", settings["listeners"] + settings["advertised.listeners"])
        assert set(hosts) == {"127.0.0.1"}
        assert settings["auto.create.topics.enable"] == "false"

    def test_compose_gives_kafka_the_same_settings(self) -> None:
        """The Docker way and the Python way differ in nothing that a client notices."""
        ours = dict(line.split("=", 1) for line in server_properties(1, 2).splitlines())
        shared = (ROOT / "compose.yaml").read_text().partition("From here on")[2]
        theirs = {
            name.lower().replace("_", "."): value
            for name, value in re.findall(r'KAFKA_(\w+): "?([^"\n]+)', shared)
            if name != "HEAP_OPTS"
        }
        assert theirs
        assert theirs == {name: ours[name] for name in theirs}

    def test_a_state_folder_may_have_any_name(self) -> None:
        """Blanks, backslashes and letters beyond ASCII survive the properties format."""
        text = s3proxy_conf(20003, "key", "secret", Path("/a b/ä\\b"))
        assert r"basedir=/a b/\u00e4\\b" in text
        assert text.isascii()


class TestDataFolder:
    """What a broker's data folder is."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [(WHOLE, "abc"), (WHOLE.replace("version=1\n", ""), None), ("", None)],
    )
    def test_reads_the_cluster_id_of_a_whole_file_only(
        self, text: str, expected: str | None
    ) -> None:
        """A file that was cut off gives no identity."""
        assert cluster_id(text) == expected

    def test_tells_whole_from_half_and_from_orphaned(self, tmp_path: Path) -> None:
        """Only a folder that holds topics without an identity must not be made anew."""
        data = tmp_path / "data"
        assert inspect(data) is Data.ABSENT
        data.mkdir()
        (data / "__cluster_metadata-0").mkdir()
        assert inspect(data) is Data.HALF_FORMATTED
        (data / "meta.properties").write_text(WHOLE)
        assert inspect(data) is Data.HALF_FORMATTED
        (data / "bootstrap.checkpoint").touch()
        assert inspect(data) is Data.FORMATTED
        (data / "sales.control-0").mkdir()
        assert inspect(data) is Data.FORMATTED
        (data / "meta.properties").write_text("")
        assert inspect(data) is Data.ORPHANED


class TestStackInfo:
    """What `stack.json` remembers."""

    def test_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        """Addresses, secrets and pids survive; paths follow the folder."""
        info = an_info(tmp_path)
        write_stack(info)
        assert read_stack(tmp_path) == info
        moved = tmp_path.parent / "moved"
        tmp_path.rename(moved)
        again = read_stack(moved)
        assert again is not None
        assert again.logs["kafka"] == moved / "logs" / "kafka.log"
        assert (again.kafka_port, again.s3_port) == (20001, 20003)
        moved.rename(tmp_path)

    def test_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        """It holds the S3 secret."""
        write_stack(an_info(tmp_path))
        assert (tmp_path / "stack.json").stat().st_mode & 0o077 == 0

    def test_keeps_its_form(self, tmp_path: Path) -> None:
        """Programs that do not import this package read these names."""
        write_stack(an_info(tmp_path))
        document = msgspec.json.decode((tmp_path / "stack.json").read_bytes())
        assert document["format"] == 1
        assert document["bootstrap_servers"] == "127.0.0.1:20001"
        assert document["s3"] == {
            "endpoint": "http://127.0.0.1:20003",
            "access_key": "modelwire",
            "secret_key": "hush",
            "bucket": "modelwire",
            "region": "us-east-1",
        }
        assert document["pids"] == {}

    def test_never_started_is_none_and_damaged_is_an_error(self, tmp_path: Path) -> None:
        """A file that can't be read is not taken for a stack that never was."""
        assert read_stack(tmp_path) is None
        (tmp_path / "stack.json").write_text('{"bootstrap_servers": 7}')
        with pytest.raises(ModelwireError, match=r"stack\.json cannot be read") as caught:
            read_stack(tmp_path)
        assert "rm " in caught.value.hint

    def test_names_the_folder_in_a_command_only_where_it_must(self, tmp_path: Path) -> None:
        """A hint can be pasted as it is."""
        assert command("up", Path(".modelwire").resolve()) == "modelwire up"
        other = tmp_path / "a b"
        assert shlex.split(command("up", other)) == ["modelwire", "up", "--state-dir", str(other)]


@pytest.fixture
def somebody_else() -> Iterator[subprocess.Popen[bytes]]:
    """A live process that is none of ours."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


class TestPidFile:
    """Whose process a pid file names."""

    def test_a_pid_that_somebody_else_has_now_is_not_ours(
        self, tmp_path: Path, somebody_else: subprocess.Popen[bytes]
    ) -> None:
        """The token decides; stopping touches nobody and clears the stale file."""
        server = ServerProcess("kafka", tmp_path)
        server.pid_file.parent.mkdir()
        server.pid_file.write_text(f'{{"pid": {somebody_else.pid}, "token": "0123456789abcdef"}}')
        assert server.pid() is None
        assert server.kill() is False
        assert server.stop() is False
        assert not server.pid_file.exists()
        assert somebody_else.poll() is None

    @pytest.mark.parametrize("text", ["", "4711", "{}", '{"pid": "x", "token": 1}'])
    def test_a_file_of_another_form_names_nobody(self, tmp_path: Path, text: str) -> None:
        """A pid file that was cut off is stale."""
        server = ServerProcess("s3", tmp_path)
        server.pid_file.parent.mkdir()
        server.pid_file.write_text(text)
        assert server.pid() is None

    def test_the_tail_keeps_the_cause_and_drops_the_frames(self, tmp_path: Path) -> None:
        """Forty stack frames do not push the sentence that matters out."""
        server = ServerProcess("kafka", tmp_path)
        server.log.parent.mkdir()
        server.log.write_text("ERROR the cause\n" + "\tat some.Frame(File.java:1)\n" * 40)
        assert server.log_tail() == "  | ERROR the cause"


class TestProgress:
    """What `up` says where there is no terminal."""

    def test_speaks_in_a_handful_of_plain_lines(self) -> None:
        """A log gets the beginning, the end and a few lines between, not one for each jar."""
        heard = io.StringIO()
        with ToConsole(Console(file=heard)).downloads() as on_jar:
            for done in range(115):
                on_jar(done, 114)
        lines = heard.getvalue().splitlines()
        assert lines[0] == "downloading 114 jars, the first time only"
        assert lines[-1] == "  114 of 114 jars"
        assert len(lines) < 15


class TestJars:
    """The jars in the cache."""

    def test_make_an_absolute_class_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server runs in a folder of its own, where a relative path would lead nowhere."""
        monkeypatch.chdir(tmp_path)
        jars = [
            Jar("org.example", name, "1", "", hashlib.sha256(b"x").hexdigest()) for name in "ab"
        ]
        cache = JarCache(Path("cache"))
        for jar in jars:
            cache.file(jar).parent.mkdir(parents=True)
            cache.file(jar).write_bytes(b"x")
        folder = tmp_path / "cache" / "org" / "example"
        assert cache.class_path(jars) == f"{folder}/a/1/a-1.jar:{folder}/b/1/b-1.jar"

    def test_with_other_bytes_are_named_and_mended_by_the_command_given(
        self, tmp_path: Path
    ) -> None:
        """Running the hint's command leaves the jar missing, so that it is downloaded again."""
        jar = locked_jars("s3")[0]
        cache = JarCache(tmp_path / "a b")
        assert cache.missing([jar]) == (jar,)
        cache.file(jar).parent.mkdir(parents=True)
        cache.file(jar).write_bytes(b"half a jar")
        assert cache.damaged([jar]) == (jar,)
        problem = damaged_jars([jar], cache)
        assert str(cache.file(jar)) in problem.message
        subprocess.run(problem.hint.partition(": ")[2], shell=True, check=True)
        assert cache.missing([jar]) == (jar,)


class TestDoctor:
    """How the doctor judges what it found."""

    @pytest.mark.parametrize(
        ("version", "verdict"),
        [((3, 10, 14), Verdict.FAIL), ((3, 11, 0), Verdict.OK), ((3, 14, 1), Verdict.OK)],
    )
    def test_wants_python_3_11(self, version: tuple[int, int, int], verdict: Verdict) -> None:
        """Older ones fail."""
        assert doctor.judge_python(version).verdict is verdict

    @pytest.mark.parametrize(
        ("free", "verdict"), [(9, Verdict.FAIL), (10, Verdict.WARN), (20, Verdict.OK)]
    )
    def test_tells_short_from_scarce_from_ample(self, free: int, verdict: Verdict) -> None:
        """Room below the least fails, below the comfortable warns."""
        check = doctor.judge_room("disk", free, 10, 20, "make room")
        assert check.verdict is verdict
        assert (check.mend == "make room") is (verdict is not Verdict.OK)

    def test_missing_jars_warn_and_damaged_jars_fail(self, tmp_path: Path) -> None:
        """What the next start downloads is no failure."""
        damage = ModelwireError("x.jar is damaged", hint="remove it: rm x.jar")
        assert doctor.judge_jars(tmp_path, 9, 2, None, "up").verdict is Verdict.WARN
        assert doctor.judge_jars(tmp_path, 9, 0, None, "up").verdict is Verdict.OK
        failed = doctor.judge_jars(tmp_path, 9, 2, damage, "up")
        assert (failed.verdict, failed.mend) == (Verdict.FAIL, "rm x.jar")

    @pytest.mark.parametrize(
        ("running", "free", "verdict"),
        [(True, False, Verdict.OK), (False, True, Verdict.OK), (False, False, Verdict.FAIL)],
    )
    def test_a_port_is_ours_or_free_or_taken(
        self, running: bool, free: bool, verdict: Verdict
    ) -> None:
        """Only a port that somebody else holds fails."""
        check = doctor.judge_port(
            "kafka", 20001, running=running, free=free, holder="pid 7 (x)", move="move"
        )
        assert check.verdict is verdict
        assert ("pid 7 (x)" in check.found) is (verdict is Verdict.FAIL)

    def test_says_which_packages_are_missing(self) -> None:
        """The mending command installs them."""
        assert doctor.judge_extra(()).verdict is Verdict.OK
        check = doctor.judge_extra(("jgo",))
        assert check.verdict is Verdict.FAIL
        assert "jgo" in check.found
        assert "pip install" in check.mend
