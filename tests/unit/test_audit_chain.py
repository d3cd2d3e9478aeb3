"""What is wrong with a chain of answer files, told by their names, footers and digests alone."""

from dataclasses import replace
from datetime import date
from typing import Any

import msgspec

from audit.chain import Finding, Link, What, suspects, walk
from schemas.answer_file import FileName, Footer, Kind

DAY = date(2026, 11, 21)


def digest(number: int) -> str:
    """That of the bytes of a file."""
    return f"sha256:{number:064x}"


def link(at: int, first: int, next_: int, previous: int | None, **changed: Any) -> Link:
    """A file of the chain; ``at`` is the number of its digest, ``previous`` that of the one before."""
    footer = Footer(
        kind=Kind.FORECASTS, model="sales", topic="sales.results", partition=3, first=first,
        next=next_, rows=5, content=digest(0), previous="" if previous is None else digest(previous),
    )  # fmt: skip
    name = FileName(Kind.FORECASTS, "sales", 3, first, DAY)
    return replace(Link(name, digest(at), footer), **changed)


def chain() -> list[Link]:
    """Four files that follow each other."""
    return [link(1, 0, 10, None), link(2, 10, 25, 1), link(3, 25, 30, 2), link(4, 30, 41, 3)]


def told(findings: list[Finding]) -> list[tuple[What, str]]:
    """What and which file, by the end of its key."""
    return [(each.what, each.key.rpartition("/")[2].removesuffix(".parquet")) for each in findings]


def named(first: int) -> str:
    """The end of a file's key."""
    return f"00003-{first:020d}"


def test_a_whole_chain_has_no_findings() -> None:
    """Stored up to its end, or with the sink behind in what it says."""
    assert walk(chain()) == walk(chain(), committed=41) == walk(chain(), committed=30) == []
    assert walk([]) == []


def test_a_missing_file_is_named() -> None:
    """In the middle with its whole key; the first; the last, where the sink says that it was there."""
    links = chain()
    middle = walk(links[:1] + links[2:])
    assert told(middle) == [(What.MISSING, named(10))]
    assert middle[0].key == f"audit/forecasts/sales/2026-11-21/{named(10)}.parquet"
    assert told(walk(links[1:])) == [(What.MISSING, named(0))]
    last = walk(links[:3], committed=41)
    assert told(last) == [(What.MISSING, named(30))]
    assert last[0].key == f"audit/forecasts/sales/*/{named(30)}.parquet"
    assert walk(links[:3]) == []


def test_files_from_some_day_on_need_no_beginning() -> None:
    """The ones before were not asked for, or a lifecycle removed them."""
    assert walk(chain()[2:], begins=False) == []


def test_two_files_at_one_position_are_one_too_many() -> None:
    """The one that the next follows on is right, whichever day it is in."""
    links = chain()
    other = replace(links[1], name=a_day_before(links[1].name), digest=digest(77))
    findings = walk([links[0], other, *links[1:]])
    assert [(each.what, each.key) for each in findings] == [(What.DOUBLED, other.name.key)]


def a_day_before(name: FileName) -> FileName:
    """The same place on an earlier day."""
    return msgspec.structs.replace(name, day=date(2026, 11, 20))


def test_a_copy_under_another_name_is_doubled_and_nothing_else() -> None:
    """At another position, or in another day, where its records say that they do not belong there."""
    links = chain()
    moved = replace(
        links[1],
        name=msgspec.structs.replace(links[1].name, first=99),
        problem="its footer says …",
    )
    assert told(walk([*links, moved])) == [(What.DOUBLED, named(99))]
    dated = replace(links[1], name=a_day_before(links[1].name), problem="other days", sound=False)
    findings = walk([links[0], dated, *links[1:]])
    assert [(each.what, each.key) for each in findings] == [(What.DOUBLED, dated.name.key)]


def test_a_file_that_reaches_into_the_next_overlaps() -> None:
    """The one behind is named, and both are in the sentence."""
    links = chain()
    links[1] = link(2, 10, 27, 1)
    findings = walk(links)
    assert told(findings) == [(What.OVERLAPPING, named(25))]
    assert named(10) in findings[0].detail


def test_an_altered_file_is_the_one_that_is_named() -> None:
    """By the file behind it; by its own records; by what it cannot be read for."""
    links = chain()
    links[1] = replace(links[1], digest=digest(99))
    assert told(walk(links)) == [(What.ALTERED, named(10))]
    links[1] = replace(links[1], sound=False, problem="its records have another digest")
    assert told(walk(links)) == [(What.ALTERED, named(10))]
    links[1] = replace(links[1], footer=None, problem="it is no Parquet file")
    assert told(walk(links)) == [(What.ALTERED, named(10))]
    last = chain()
    last[3] = replace(last[3], sound=False, problem="its records have another digest")
    assert told(walk(last)) == [(What.ALTERED, named(30))]


def test_an_edited_footer_is_its_own_files_fault() -> None:
    """Not that of the sound one before, whose digest it states wrongly."""
    links = chain()
    links[2] = link(99, 25, 30, 55, sound=True)
    links[1] = replace(links[1], sound=True)
    assert told(walk(links)) == [(What.ALTERED, named(25))]


def test_records_that_were_gone_are_told_but_for_the_beginning() -> None:
    """Before the chain they were nobody's; in it they are lost."""
    links = chain()
    gap = replace(links[0], footer=gapped(links[0]))
    assert walk([gap, *links[1:]]) == []
    links[2] = replace(links[2], footer=gapped(links[2]))
    assert told(walk(links)) == [(What.LOST, named(25))]


def gapped(of: Link) -> Footer:
    """The same footer for no rows."""
    assert of.footer is not None
    return msgspec.structs.replace(of.footer, rows=0)


def test_only_those_in_doubt_are_read_closer() -> None:
    """The last one, both sides of what does not hold, and what begins at the same position."""
    links = chain()
    assert [each.name.first for each in suspects(links)] == [30]
    links[1] = replace(links[1], digest=digest(99))
    assert sorted(each.name.first for each in suspects(links)) == [10, 25, 30]
    assert suspects([replace(links[3], sound=True)]) == []
    assert suspects([]) == []
