"""Whether the files of a partition are one chain: what is missing, doubled, overlapping, altered, lost.

Each file begins where the one before ended, and states the digest of its bytes. So of a chain whose last
file is sound, every byte of the others is known.

1. ``missing``: a file begins behind where the one before ended; a first file names one before it; the
   sink stored files beyond the last one.
2. ``doubled``: two files begin at the same position, or one is a copy under another's name.
3. ``overlapping``: a file begins before the one before ended.
4. ``altered``: a file is not what it states, or has other bytes than those that the next one follows on.
5. ``lost``: records were gone from the topic before anybody copied them. Where a chain begins it is no
   finding: they were before the audit's time.
6. ``foreign``: something lies among the files that is none; ``audit.check`` names it.

What the findings are made of is read by ``audit.check``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise

from schemas.answer_file import FileName, Footer, kind_folder


class What(StrEnum):
    """What is not as it must be."""

    MISSING = "missing"
    DOUBLED = "doubled"
    OVERLAPPING = "overlapping"
    ALTERED = "altered"
    LOST = "lost"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Finding:
    """``key`` is of the file that is meant; of a missing one, whose day may be ``*``."""

    what: What
    key: str
    detail: str


@dataclass(frozen=True)
class Link:
    """A file as it lies in the store. ``digest`` is of its bytes.

    ``footer`` is None where it cannot be read, for what ``problem`` says; a file whose records are not
    those that it states has both. ``sound`` is None where its records were not looked at.
    """

    name: FileName
    digest: str
    footer: Footer | None
    problem: str = ""
    sound: bool | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the file says that it belongs under another name."""
        return self.footer is not None and _place_in(self.footer) != _place_of(self.name)


def walk(
    links: Sequence[Link], *, begins: bool = True, committed: int | None = None
) -> list[Finding]:
    """What is wrong with the files of one partition.

    ``begins``: no files lie before these, or they were not asked for. ``committed``: up to where the sink
    says that it stored; None where it is not known, or later files were not asked for.
    """
    copies = _copies(links)
    findings = [
        Finding(What.DOUBLED, link.name.key, f"it is a copy of {original.key}")
        for link, original in copies
    ]
    copied = {link.name for link, _ in copies}
    findings += [
        Finding(What.ALTERED, link.name.key, link.problem)
        for link in links
        if link.problem and link.name not in copied
    ]
    line = []
    at_first = _by_first([link for link in links if link.name not in copied])
    for at, found in enumerate(at_first):
        after = at_first[at + 1] if at + 1 < len(at_first) else []
        link, others = _of_the_chain(found, after)
        line.append(link)
        findings += [
            Finding(What.DOUBLED, other.name.key, f"{link.name.key} begins at the same position")
            for other in others
        ]
    return [*findings, *_breaks(line, begins), *_end(line, committed)]


def suspects(links: Sequence[Link]) -> list[Link]:
    """The files that ``walk`` can judge better once it is known whether they are sound.

    They are the last one, whose bytes no other states, both sides of a link that does not hold, and those
    that begin at the same position.
    """
    at_first = _by_first(links)
    found = [link for same in at_first if len(same) > 1 for link in same]
    line = [same[0] for same in at_first]
    for link, after in pairwise(line):
        if after.footer is None or after.footer.previous != link.digest:
            found += (link, after)
    asked = {link.name: link for link in (*found, *line[-1:])}
    return [link for link in asked.values() if link.footer is not None and link.sound is None]


def _by_first(links: Sequence[Link]) -> list[list[Link]]:
    """Those that say that they belong where they lie, in the order of their positions."""
    placed = sorted((each for each in links if not each.is_elsewhere), key=lambda each: each.name)
    return [list(same) for _, same in groupby(placed, key=lambda each: each.name.first)]


def _copies(links: Sequence[Link]) -> list[tuple[Link, FileName]]:
    """The files that lie under a name that is not theirs, with that of the same bytes under their own."""
    owners = {link.digest: link.name for link in links if not link.problem}
    return [(link, owners[link.digest]) for link in links if link.problem and link.digest in owners]


def _of_the_chain(found: Sequence[Link], after: Sequence[Link]) -> tuple[Link, list[Link]]:
    """Of files that begin at the same position the one that the next follows on, and the others."""
    wanted = {link.footer.previous for link in after if link.footer is not None}
    link = next((each for each in found if each.digest in wanted), found[0])
    return link, [each for each in found if each is not link]


def _breaks(line: Sequence[Link], begins: bool) -> Iterator[Finding]:
    before: Link | None = None
    for at, link in enumerate(line):
        footer = link.footer
        if before is None:
            if footer is not None and begins and (footer.first or footer.previous):
                yield _missing(link, 0, "nothing lies before it")
        elif before.footer is None or footer is None:
            pass  # told already, and nobody knows where it ended
        elif footer.first > before.footer.next:
            yield _missing(link, before.footer.next, f"{before.name.key} ends there", before)
        elif footer.first < before.footer.next:
            yield Finding(
                What.OVERLAPPING,
                link.name.key,
                f"it begins at {footer.first}, and {before.name.key} ends at {before.footer.next}",
            )
        elif (
            footer.previous != before.digest
            and not (
                before.problem
                # Where the one before is sound and this one is in doubt itself, it is this one's footer.
                or (before.sound and (link.problem or _is_doubted(link, line[at + 1 :])))
            )
        ):
            yield Finding(
                What.ALTERED,
                before.name.key,
                f"its bytes are not those that {link.name.key} follows on",
            )
        if footer is not None and footer.is_gap and not (begins and before is None):
            yield Finding(
                What.LOST,
                link.name.key,
                f"the positions {footer.first} to before {footer.next} were gone from {footer.topic} "
                "when they were to be copied",
            )
        before = link


def _is_doubted(link: Link, behind: Sequence[Link]) -> bool:
    after = behind[0].footer if behind else None
    return after is not None and after.previous != link.digest


def _end(line: Sequence[Link], committed: int | None) -> Iterator[Finding]:
    if committed is None or not line or line[-1].footer is None:
        return
    last = line[-1]
    assert last.footer is not None
    if last.footer.next < committed:
        yield Finding(
            What.MISSING,
            _key_at(last.name, last.footer.next),
            f"{last.name.key} is the last and ends there, and the sink stored up to {committed}",
        )


def _missing(link: Link, at: int, why: str, before: Link | None = None) -> Finding:
    same_day = before is not None and before.name.day == link.name.day
    return Finding(
        What.MISSING,
        _key_at(link.name, at, same_day=same_day),
        f"the positions {at} to before {link.name.first} are in no file: {why}, and the next is "
        f"{link.name.key}",
    )


def _key_at(name: FileName, first: int, *, same_day: bool = False) -> str:
    day = name.day.isoformat() if same_day else "*"
    folder = kind_folder(name.kind, name.model)
    return f"{folder}/{day}/{name.partition:05d}-{first:020d}.parquet"


def _place_of(name: FileName) -> tuple[object, ...]:
    return name.kind, name.model, name.partition, name.first


def _place_in(footer: Footer) -> tuple[object, ...]:
    return footer.kind, footer.model, footer.partition, footer.first
