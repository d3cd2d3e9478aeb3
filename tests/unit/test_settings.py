"""Settings: who wins, and what a wrong one says."""

from pathlib import Path

import pytest

from adapters.settings import load_settings
from modelwire.settings_page import PAGE, generate
from schemas.errors import ModelwireError, UsageProblem


def test_later_sources_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file gives way to the environment, and that to a flag."""
    (tmp_path / "modelwire.toml").write_text(
        'actor = "file"\nstore_url = "file:///file"\n[consumer]\nbatch_size = 7\n'
    )
    assert load_settings().actor == "file"
    monkeypatch.setenv("MODELWIRE_ACTOR", "environment")
    monkeypatch.setenv("MODELWIRE_CONSUMER__COMMIT_EVERY", "9")
    settings = load_settings(store_url="file:///flag")
    assert settings.actor == "environment"
    assert settings.store_url == "file:///flag"
    assert (settings.consumer.batch_size, settings.consumer.commit_every) == (7, 9)


def test_the_common_variable_is_honoured_below_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """``KAFKA_BOOTSTRAP_SERVERS`` counts unless modelwire's own variable is set."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1")
    assert load_settings().kafka.bootstrap_servers == "a:1"
    monkeypatch.setenv("MODELWIRE_KAFKA__BOOTSTRAP_SERVERS", "b:2")
    assert load_settings().kafka.bootstrap_servers == "b:2"


def test_a_running_stack_fills_in_what_nothing_names(tmp_path: Path) -> None:
    """After ``modelwire up`` no command needs an address; after ``down`` the store is a folder."""
    state = tmp_path / ".modelwire"
    state.mkdir()
    stack = (
        '{"bootstrap_servers":"127.0.0.1:9","s3":{"endpoint":"http://127.0.0.1:8",'
        '"access_key":"k","secret_key":"s","bucket":"b","region":"r"},"pids":%s}'
    )
    (state / "stack.json").write_text(stack % '{"kafka":1}')
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9"
    assert settings.store_url == "s3://b"
    assert settings.s3_settings.endpoint_url == "http://127.0.0.1:8"
    assert load_settings(s3={"secret_key": "mine"}).s3.secret_key == "mine"
    (state / "stack.json").write_text(stack % "{}")
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == ""
    assert settings.store_url == (state / "store").as_uri()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[consumer]\nbatch_size = 0\n", "consumer.batch_size"),
        ("[consumer]\nbatchsize = 5\n", "consumer.batchsize"),
        ("nonsense = 1\n", "nonsense"),
        ("[consumer\n", "line 1"),
    ],
)
def test_a_wrong_file_names_the_key(tmp_path: Path, text: str, says: str) -> None:
    """Whatever is wrong, the message names the key or the line, and there is no traceback."""
    (tmp_path / "modelwire.toml").write_text(text)
    with pytest.raises(UsageProblem, match=says):
        load_settings()


def problem_of(**flags: object) -> UsageProblem:
    """What ``load_settings`` says is wrong."""
    with pytest.raises(UsageProblem) as caught:
        load_settings(**flags)
    assert caught.value.exit_code == 2
    assert "docs/settings.md" in caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"[consumer]\nbatch_size =\n", 2), (b'actor = "\n\xff', 2), (b"[consumer]\nx = [1,\n2", 3)],
)
def test_a_file_that_is_no_toml_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, line: int
) -> None:
    """By its own name, with the line, also where it ends too early or is no text."""
    (tmp_path / "bad.toml").write_bytes(content)
    monkeypatch.setenv("MODELWIRE_CONFIG", "bad.toml")
    assert problem_of().message.startswith(f"bad.toml is not valid TOML: line {line}: ")


def test_a_setting_that_does_not_exist_has_a_nearest_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the variable, the file or the flag that named it."""
    monkeypatch.setenv("MODELWIRE_CONSUMER__HELTH_PORT", "9500")
    problem = problem_of()
    assert problem.message == (
        "there is no setting consumer.helth_port "
        "(found in the variable MODELWIRE_CONSUMER__HELTH_PORT)"
    )
    assert "did you mean consumer.health_port?" in problem.hint
    monkeypatch.delenv("MODELWIRE_CONSUMER__HELTH_PORT")
    (tmp_path / "modelwire.toml").write_text("[consumr]\nbatch_size = 5\n")
    assert "consumr (found in modelwire.toml)" in problem_of().message
    assert "did you mean consumer?" in problem_of().hint
    (tmp_path / "modelwire.toml").unlink()
    problem = problem_of(zzz=1)
    assert "zzz (found in a flag)" in problem.message
    assert "did you mean" not in problem.hint


@pytest.mark.parametrize(
    "variable",
    ["MODELWIRE_CONSUMR__BATCH_SIZE", "modelwire_Consumr__X__Y", "MODELWIRE_CONSUMR__"],
)
def test_a_variable_of_a_section_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """As a key of one that does, and whatever else is set."""
    monkeypatch.setenv("MODELWIRE_CONSUMER__BATCH_SIZE", "256")
    monkeypatch.setenv(variable, "hush")
    problem = problem_of()
    assert problem.message == f"there is no setting consumr (found in the variable {variable})"
    assert "did you mean consumer?" in problem.hint


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that Kubernetes sets for a service of our name, and those that compose.yaml reads."""
    for variable in ("PORT", "SERVICE_HOST", "PORT_9400_TCP_ADDR", "KAFKA_PORT", "CONFIG"):
        monkeypatch.setenv(f"MODELWIRE_{variable}", "")
    monkeypatch.setenv("OTHER_CONSUMR__BATCH_SIZE", "9")
    assert load_settings().consumer.batch_size == 512


def test_a_value_that_is_not_usable_is_shown_with_where_it_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several sources it is the one that won."""
    (tmp_path / "modelwire.toml").write_text("[consumer]\nbatch_size = 0\n")
    assert "1, and 0 was found in modelwire.toml" in problem_of().message
    monkeypatch.setenv("MODELWIRE_CONSUMER", '{"commit_every": 5}')
    assert "0 was found in modelwire.toml" in problem_of().message
    monkeypatch.setenv("MODELWIRE_CONSUMER", '{"batch_size": -1}')
    assert "-1 was found in the variable MODELWIRE_CONSUMER" in problem_of().message
    monkeypatch.setenv("modelwire_consumer__batch_size", "many")
    said = problem_of().message
    assert "'many' was found in the variable modelwire_consumer__batch_size" in said
    assert "-2 was found in a flag" in problem_of(consumer={"batch_size": -2}).message
    monkeypatch.setenv("MODELWIRE_CONSUMER__BATCH_SIZE__X", "1")
    monkeypatch.delenv("modelwire_consumer__batch_size")
    said = problem_of().message
    assert "a table was found in the variable MODELWIRE_CONSUMER__BATCH_SIZE__X" in said


@pytest.mark.parametrize(
    "text",
    [
        "s3 = 'hush'",
        "s3.secret_key = ['hush']",
        "kafka = 'hush'",
        "kafka.properties = 'hush'",
        "kafka.properties.'sasl.password' = ['hush']",
        "s3.secretkey = 'hush'",
        "s3.access_key = 20111120",
    ],
)
def test_what_may_be_secret_is_not_shown(tmp_path: Path, text: str) -> None:
    """Neither in the message nor in what the error carries along."""
    (tmp_path / "modelwire.toml").write_text(text)
    problem = problem_of()
    for hidden in ("hush", "20111120"):
        assert hidden not in f"{problem.message} {problem.hint} {problem.__cause__!r}"


@pytest.mark.parametrize(
    "servers",
    ["127.0.0.1:abc", "a:1,b:0", "a:65536", "a:", "[::1]:x", "SSL://a:1a", "a:1, b:-1", "a:٣"],
)
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, servers: str) -> None:
    """Before anybody waits for a broker there, and whoever named it is named."""
    said = problem_of(kafka={"bootstrap_servers": servers}).message
    assert "from 1 to 65535" in said
    assert f"{servers!r} was found in a flag" in said
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    assert "in the variable KAFKA_BOOTSTRAP_SERVERS" in problem_of().message


@pytest.mark.parametrize(
    "servers", ["a", "a:1, b:65535", "[::1]:9092", "[::1]", "::1", "SSL://a:9092", "a:1,"]
)
def test_an_address_with_a_port_or_without_one_is_taken(servers: str) -> None:
    """As librdkafka reads them; without a port it takes 9092."""
    assert load_settings(kafka={"bootstrap_servers": servers}).kafka.bootstrap_servers == servers


def test_a_damaged_stack_file_says_what_to_do(tmp_path: Path) -> None:
    """The hint is the command that writes it anew."""
    (tmp_path / ".modelwire").mkdir()
    (tmp_path / ".modelwire" / "stack.json").write_text("{")
    with pytest.raises(ModelwireError) as caught:
        load_settings()
    assert "modelwire up" in caught.value.hint


def test_the_settings_page_is_up_to_date() -> None:
    """``make schemas`` was run after the last change of a setting."""
    assert PAGE.read_text() == generate()
