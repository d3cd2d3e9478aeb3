"""``audit check``: reads every file of a model's audit, and says what is not as it must be.

The rules are ``audit.chain``'s. Every file is read once for its digest; of those that the rules cannot
judge by it (the last of each chain, both sides of a broken link) the records are read too.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import groupby

from adapters.answer_files import AnswerStore, FileElsewhere, check_day, check_file, read_footer
from adapters.answer_source import AnswerSource, Place
from adapters.settings import Settings
from audit.chain import Finding, Link, What, suspects, walk
from schemas.answer_file import FileDamaged, FileName, Kind
from schemas.errors import NotFound
from schemas.manifest import digest_of

READERS = 4
"""Files that are read at a time: most of it is waiting for the store."""

LOOK_BACK_DAYS = 8
"""How far before the first day the files are looked for that the first ones follow on."""


@dataclass(frozen=True)
class Counts:
    """What was read of a kind. ``unreadable`` records are nothing of the kind."""

    kind: Kind
    partitions: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Report:
    """What was read, and what is wrong with it."""

    counts: tuple[Counts, ...]
    findings: tuple[Finding, ...]


def check(
    store: AnswerStore,
    since: date | None,
    until: date | None,
    committed: Mapping[Place, int],
    today: date,
) -> Report:
    """Check the files of these days (both included), all without them.

    ``today`` is the last day that can have files, where no last one is asked for. ``committed`` is up to
    where the sink says that it stored; it counts only without ``until``. Raises NotFound where there
    is no file at all, and as the store does.
    """
    counts, findings = [], []
    for kind in Kind:
        said = (
            {}
            if until is not None
            else {
                place.partition: position
                for place, position in committed.items()
                if place.kind is kind
            }
        )
        last = until if since is None or until is not None else today + timedelta(days=1)
        counted, found = _check_kind(store, kind, since, last, said)
        counts.append(counted)
        findings += found
    if not any(each.files for each in counts) and not findings:
        raise NotFound(
            f"there are no answer files of this model in {store.url}"
            + (" of these days" if since or until else ""),
            hint="check the model's name and audit.store_url; a sink writes them: modelwire audit sink",
        )
    return Report(tuple(counts), tuple(findings))


def committed_positions(settings: Settings, model: str) -> dict[Place, int]:
    """Up to where the sink says that it stored. Raises NotFound where topics are missing."""
    source = AnswerSource(settings, model)
    try:
        return {place: left.next for place, left in source.committed(source.places()).items()}
    finally:
        source.close()


def _check_kind(
    store: AnswerStore,
    kind: Kind,
    since: date | None,
    last: date | None,
    committed: Mapping[int, int],
) -> tuple[Counts, list[Finding]]:
    first = None if since is None else _before(since)
    names, foreign = _look(store, kind, first, last)
    findings = [
        Finding(What.FOREIGN, key, "it is no answer file, and lies among them") for key in foreign
    ]
    counted = Counts(kind)
    chains = {number: list(found) for number, found in groupby(names, key=lambda n: n.partition)}
    with ThreadPoolExecutor(READERS) as readers:
        for number in sorted({*chains, *committed}):
            asked = list(_asked(chains.get(number, []), since))
            links, sizes = [], 0
            for link, size in readers.map(lambda name: _read(store, name), asked):
                links.append(link)
                sizes += size if since is None or link.name.day >= since else 0
            links = _look_closer(store, links)
            position = committed.get(number)
            if links:
                findings += walk(links, begins=since is None, committed=position)
                counted = _counted(counted, links, sizes, since)
            elif position and since is None:
                findings.append(_all_missing(kind, number, position))
    return counted, findings


def _look(
    store: AnswerStore, kind: Kind, first: date | None, last: date | None
) -> tuple[list[FileName], list[str]]:
    """The files as of one moment, and what is none.

    A sink that stores meanwhile may have a file listed and the one before it not, where that one's day
    was listed already. A second look has whatever was there before what the first one saw.
    """
    seen, foreign = store.look(kind, first, last)
    ends = {name.partition: name.first for name in seen}
    again = store.look(kind, first, last)[0]
    return [name for name in again if name.first <= ends.get(name.partition, -1)], foreign


def _before(since: date) -> date:
    return since - min(timedelta(days=LOOK_BACK_DAYS), since - date.min)


def _asked(names: Sequence[FileName], since: date | None) -> Iterator[FileName]:
    """The files of the days, and the one before each of them that another day's follows on."""
    for at, name in enumerate(names):
        after = names[at + 1] if at + 1 < len(names) else None
        if since is None or name.day >= since or after is None or after.day >= since:
            yield name


def _read(store: AnswerStore, name: FileName, *, deep: bool = False) -> tuple[Link, int]:
    try:
        content = store.read(name)
    except FileDamaged as error:
        return Link(name, "", None, _found(error)), 0
    digest, footer, problem = digest_of(content), None, ""
    try:
        footer = read_footer(content, name)
        check_day(content, name)
        if deep:
            check_file(content, name)
    except FileElsewhere as error:
        footer, problem = error.footer, _found(error)
    except FileDamaged as error:
        problem = _found(error)
    return Link(name, digest, footer, problem, not problem if deep else None), len(content)


def _look_closer(store: AnswerStore, links: list[Link]) -> list[Link]:
    closer = {link.name: _read(store, link.name, deep=True)[0] for link in suspects(links)}
    return [replace(closer.get(link.name, link), digest=link.digest) for link in links]


def _found(error: FileDamaged) -> str:
    return error.message.partition(": ")[2]


def _counted(counted: Counts, links: Sequence[Link], sizes: int, since: date | None) -> Counts:
    own = [link for link in links if since is None or link.name.day >= since]
    footers = [link.footer for link in own if link.footer is not None and not link.is_elsewhere]
    return replace(
        counted,
        partitions=counted.partitions + bool(own),
        files=counted.files + len(own),
        rows=counted.rows + sum(footer.rows for footer in footers),
        bytes=counted.bytes + sizes,
        unreadable=counted.unreadable + sum(footer.unreadable for footer in footers),
    )


def _all_missing(kind: Kind, partition: int, position: int) -> Finding:
    return Finding(
        What.MISSING,
        f"{kind}, partition {partition}",
        f"it has no file, and the sink stored up to {position}",
    )
