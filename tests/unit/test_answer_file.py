"""Names, footers and digests of answer files."""

import struct
from datetime import UTC, date, datetime
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.answer_file import (
    ContentHash,
    FileName,
    Footer,
    Kind,
    Record,
    day_of,
    decode_footer,
    encode_footer,
    parse_key,
)

DAY = date(2026, 11, 21)
DIGEST = f"sha256:{'0' * 64}"


def test_a_key_says_where_its_file_starts() -> None:
    """Kind, model, day, partition and position: the same for everybody who starts there."""
    name = FileName(Kind.FORECASTS, "sales", 3, 12_345, DAY)
    assert name.key == "audit/forecasts/sales/2026-11-21/00003-00000000000000012345.parquet"


@given(
    kind=st.sampled_from(Kind),
    model=st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True),
    partition=st.integers(0, 200_000),
    first=st.integers(0, 2**63 - 1),
    day=st.dates(),
)
def test_a_key_is_read_as_it_was_written(
    kind: Kind, model: str, partition: int, first: int, day: date
) -> None:
    """Whatever the numbers."""
    name = FileName(kind, model, partition, first, day)
    assert parse_key(name.key) == name


@pytest.mark.parametrize(
    "key",
    [
        "audit/forecasts/sales/2026-11-21/3-00000000000000012345.parquet",
        "audit/forecasts/sales/2026-11-21/000003-00000000000000012345.parquet",
        "audit/forecasts/sales/2026-11-31/00003-00000000000000012345.parquet",
        "audit/forecasts/sales/2026-11-21/00003-00000000000000012345.parquet-5f1c",
        "audit/answers/sales/2026-11-21/00003-00000000000000012345.parquet",
        "forecasts/sales/2026-11-21/00003-00000000000000012345.parquet",
        "audit/forecasts/Sales/2026-11-21/00003-00000000000000012345.parquet",
    ],
)
def test_other_keys_are_no_answer_files(key: str) -> None:
    """Also those that would be read as the same place twice."""
    assert parse_key(key) is None


def footer(**changed: object) -> Footer:
    """A footer, in part as given."""
    given_fields: dict[str, object] = {
        "kind": Kind.SHADOW, "model": "sales", "topic": "sales.shadow", "partition": 3,
        "first": 10, "next": 20, "rows": 4, "content": DIGEST,
    }  # fmt: skip
    return Footer(**(given_fields | changed))  # type: ignore[arg-type]


def test_a_footer_is_read_as_it_was_written() -> None:
    """And says whether its file begins a chain, or stands for records that were gone."""
    first, later, gap = footer(), footer(previous=DIGEST), footer(rows=0)
    assert decode_footer(encode_footer(later)) == later
    assert [each.begins_chain for each in (first, later, gap)] == [True, False, True]
    assert [each.is_gap for each in (first, later, gap)] == [False, False, True]


def test_a_later_footer_may_say_more() -> None:
    """Unknown keys are accepted, another format is not."""
    raw = encode_footer(footer())
    assert decode_footer(raw.replace(b'"rows"', b'"new":1,"rows"')) == footer()
    with pytest.raises(ValueError, match="answers/2"):
        decode_footer(raw.replace(b"answers/1", b"answers/2"))


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 11, 21, 23, 59, 59, 999_000, tzinfo=UTC), DAY),
        (datetime(2026, 11, 22, tzinfo=UTC), date(2026, 11, 22)),
    ],
)
def test_a_day_ends_at_midnight_utc(moment: datetime, day: date) -> None:
    """Wherever the sink runs."""
    assert day_of(round(moment.timestamp() * 1_000)) == day


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_time_has_a_day(time_ms: int) -> None:
    """Also one that no calendar has: a producer may have said so."""
    assert date(1970, 1, 1) <= day_of(time_ms) <= date.max


def test_the_content_hash_is_what_the_documentation_says() -> None:
    """So that others can compute it: this is written out by its words."""
    records = [
        Record(7, 1_000, None, b"value", (("name", b"x"), ("none", None))),
        Record(9, -1, b"key", None),
    ]
    content = ContentHash()
    content.take(records[:1])
    content.take(records[1:])
    by_hand = (
        struct.pack(">qqqqi", 7, 1_000, -1, 5, 2) + b"value"
        + struct.pack(">qq", 4, 1) + b"namex" + struct.pack(">qq", 4, -1) + b"none"
        + struct.pack(">qqqqi", 9, -1, 3, -1, 0) + b"key"
    )  # fmt: skip
    assert content.digest == f"sha256:{sha256(by_hand).hexdigest()}"
