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
