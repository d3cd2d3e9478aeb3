"""Answers of a real run explained, and the state at every moment of it."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.control_log import read_log
from deployment.routing import bucket
from schemas.answer_file import Kind
from schemas.events import RolloutPromoted, encode_event
from tests.audited import BAD, SENDINGS, AuditedRun
from tests.bundles import expected
from tests.fleet import Harness

pytestmark = pytest.mark.stack


def explain(audited: AuditedRun, target: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `audit explain` says for programs."""
    model = audited.harness.model
    said = audited.audit("explain", target, "--model", model, "-o", "json", *arguments, code=code)
    return json.loads(said)  # type: ignore[no-any-return]


def place(row: dict[str, Any]) -> str:
    """Where the request of a kept answer lay."""
    return f"{row['source_topic']}/{row['source_partition']}/{row['source_offset']}"


def test_an_answer_of_a_canary_says_why_this_version_and_who_made_it_so(
    audited: AuditedRun,
) -> None:
    """Bucket, weight and salt; release, crown and shift; what each field did, worked out by hand."""
    _, row = audited.an_answer(version=3)
    found = explain(audited, place(row))["explanation"]
    chosen = found["chosen"]
    assert (chosen["version"], chosen["variant"], chosen["salt"]) == (3, "candidate", "salt")
    assert chosen["bucket"] == bucket("salt", row["key"].encode()) < chosen["weight"]
    assert chosen["weight"] in (2_500, 5_000)
    assert found["released"]["what"].startswith("released audited:3")
    assert found["crowned"]["what"] == "made audited:2 champion"
    assert f"answers {chosen['weight'] / 100:g} %" in found["routed"]["what"]
    assert found["answer"]["outputs"] == json.loads(row["outputs"])
    assert found["request"]["inputs"] == json.loads(row["inputs"])
    ablation, inputs = found["ablation"], found["request"]["inputs"]
    assert (ablation["source"], ablation["rows"]) == ("golden.jsonl", 9)
    assert ablation["outputs"] == found["answer"]["outputs"]
    effects = {each["field"]: each for each in ablation["fields"]}
    units = effects["units"]
    assert units["typical"] == 1.0
    given = expected(3.0, inputs["item"], inputs["units"])
    assert units["effects"]["forecast"] == given - expected(3.0, inputs["item"], 1.0)
    assert effects["item"]["typical"] == "a"
    assert effects["item"]["effects"]["forecast"] == given - expected(3.0, "a", inputs["units"])
    assert effects["date"]["effects"]["forecast"] == 0.0
    assert found["faults"] == []
    assert found["missing"] == ["its bundle has no evidence of how good it is"]


def test_it_says_the_same_in_words(audited: AuditedRun) -> None:
    """Each part has its sentence."""
    _, row = audited.an_answer(version=3)
    text = audited.audit("explain", place(row), "--model", audited.harness.model)
    for said in (
        f"Request '{row['request_id']}' came as {place(row)} with the key '{row['key']}'",
        "It was answered with forecast = ",
        r"its key falls into bucket [\d,]+ of 10,000, below the (2,500|5,000) that the candidate",
        r"test released audited:3 \([0-9a-f]{16}\) at ",
        r"The champion of then: made audited:2 champion, by test at ",
        r"The shares of then: rollout \d+ answers (25|50) %, by test at ",
        r"units = \S+ (raises|lowers) forecast by|units = \S+ is typical",
        r"Typical is the median, or the commonest, of 9 rows of the bundle's golden\.jsonl",
    ):
        assert re.search(said if "\\" in said or "|" in said else re.escape(said), text), text


def test_without_traffic_on_a_candidate_the_champion_answered_everything(
    audited: AuditedRun,
) -> None:
    """And it is said who made it champion: here the start of a blue-green rollout."""
    _, row = audited.an_answer(version=1)
    found = explain(audited, place(row))["explanation"]
    assert found["chosen"]["bucket"] is None
    assert "the champion, version 1, answered everything" in found["chosen"]["why"]
    assert found["crowned"]["revision"] == 3


def test_an_id_that_repeats_lists_its_answers(audited: AuditedRun) -> None:
    """Each with the place by which it can be asked for."""
    _, row = audited.an_answer(version=3)
    listed = explain(audited, row["request_id"])
    assert "explanation" not in listed
    assert len(listed["answers"]) == SENDINGS
    assert place(row) in {each["request"] for each in listed["answers"]}
    text = audited.audit("explain", row["request_id"], "--model", audited.harness.model)
    assert f"was answered {SENDINGS} times" in text


def test_a_rejection_says_what_was_wrong_and_which_bytes_were_kept(audited: AuditedRun) -> None:
    """With a version where it came that far, without one where nobody could read it."""
    found = explain(audited, "bad-1")
    assert len(found["answers"]) == 3
    by_reason = {each["said"]: each["request"] for each in audited_rejections(audited)}
    unread = explain(audited, by_reason["not-json"])["explanation"]
    assert (unread["chosen"]["version"], unread["request"]["text"]) == (0, "not json")
    assert "before any version was chosen" in unread["chosen"]["why"]
    lost = explain(audited, by_reason["too-large"])["explanation"]
    assert lost["request"]["text"] is None or len(lost["request"]["text"]) == len(BAD[-1] or b"")
    read = explain(audited, by_reason["duplicate-key"])["explanation"]
    assert read["answer"]["detail"]
    assert read["answer"]["outputs"] is None
    text = audited.audit("explain", by_reason["not-json"], "--model", audited.harness.model)
    assert "It was rejected as not-json" in text
    assert "Its bytes were 'not json'" in text


def audited_rejections(audited: AuditedRun) -> list[dict[str, Any]]:
    """Every rejection as `audit verify` names it."""
    import pyarrow.parquet as pq

    return [
        {"said": row["reason"], "request": place(row)}
        for name in audited.names
        if name.kind is Kind.REJECTIONS
        for row in pq.read_table(audited.path(name)).to_pylist()
    ]


def test_a_bundle_that_is_gone_leaves_the_rest_explained(audited: AuditedRun) -> None:
    """And says what is missing."""
    _, row = audited.an_answer(version=3)
    with audited.restoring():
        folder = audited.store / "bundles" / row["digest"].removeprefix("sha256:")
        for file in folder.iterdir():
            file.unlink()
        found = explain(audited, place(row))["explanation"]
    assert row["digest"] in found["missing"][0]
    assert (found["ablation"], found["made"]) == (None, None)
    assert found["chosen"]["bucket"] is not None


def test_the_state_at_a_moment_is_what_the_log_said_then(
    audited: AuditedRun, tmp_path: Path
) -> None:
    """By revision and by time, in words and for programs; from Kafka, the store or a file."""
    model, events = audited.harness.model, audited.events()
    crowned = [each.event for each in events if isinstance(each.data, RolloutPromoted)]
    at = str(crowned[1].revision)
    state = json.loads(audited.audit("state", "--model", model, "--at", at, "-o", "json"))
    assert (state["champion"]["version"], state["previous"]["version"]) == (2, 1)
    assert state["champion"]["since"]["actor"] == "test"
    assert state["candidate"] is None
    then = crowned[1].time.isoformat()
    for source in ("kafka", "store"):
        by_time = json.loads(
            audited.audit(
                *("state", "--model", model, "--at", then, "-o", "json", "--control-log", source)
            )
        )
        assert {**by_time, "at": ""} == {**state, "at": ""}
    started = next(each.event.revision for each in events if b'"canary"' in bytes(each.event.data))
    moving = audited.audit("state", "--model", model, "--at", str(started + 2))
    assert re.search(rf"candidate +{model}:3 .* 50 %", moving), moving
    assert re.search(rf"champion +{model}:2 .* 50 %", moving), moving
    lines = [encode_event(each.event) for each in events]
    lines[3] = lines[3].replace(b'"actor":"test"', b'"actor":"eve"')
    log = tmp_path / "control.jsonl"
    log.write_bytes(b"\n".join(lines))
    chain = ("state", "--model", model, "--control-log", str(log))
    audited.audit(*chain, "--at", "3")
    audited.audit(*chain, "--at", "4", code=5)
    audited.audit(*chain, "--at", "99999", code=4)
    audited.audit("state", "--model", model, "--at", "soon", code=2)


def test_a_log_that_breaks_on_kafka_is_told_and_counts_up_to_there(harness: Harness) -> None:
    """An event that follows another hash, which no writer of modelwire appends."""
    harness.release(f"sha256:{'1' * 64}")
    last = read_log(harness.settings, harness.model).events[-1].event
    rogue = msgspec.structs.replace(last, sequence="4", previous=f"sha256:{'0' * 64}")
    producer = harness.producer()
    producer.produce(harness.topics.control, encode_event(rogue))
    assert producer.flush(30) == 0
    chain = ("audit", "state", "--model", harness.model)
    assert f"{harness.model}:1" in harness.run(*chain, "--at", "2")
    said = harness.run(*chain, code=5)
    assert "from revision 3 on nothing vouches for the control log" in said
    assert "next: " in said
