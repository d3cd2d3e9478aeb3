"""What verifying and explaining gave, in words."""

from audit.verdicts import Outcome
from audit.verify import Report


def printable(text: str) -> str:
    """What callers wrote must not steer the terminal: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def summary(report: Report) -> list[str]:
    """The report in a few sentences."""
    counts = report.outcomes
    fine = counts[Outcome.IDENTICAL] + counts[Outcome.WITHIN_TOLERANCE]
    lines = [f"{fine:,} of {report.checked:,} answers of {report.model} came out again"]
    parts = [
        f"{counts[outcome]:,} {word}"
        for outcome, word in _OUTCOMES.items()
        if counts[outcome] or outcome is Outcome.IDENTICAL
    ]
    lines.append(f"  {', '.join(parts)}; {_count(report.revisions, 'revision')}")
    others = {name: n for name, n in report.runtimes.items() if name != report.runtime}
    lines.append(f"  derived on {report.runtime}")
    lines += [
        f"  {count:,} given on {name or 'a runtime that is not recorded'}"
        for name, count in sorted(others.items())
    ]
    if report.difference:
        lines.append(f"  largest difference between two outputs: {report.difference:.6g}")
    if report.control_log is not None:
        lines.append(f"  {report.control_log.what}: {report.control_log.why}")
    return lines


_OUTCOMES = {
    Outcome.IDENTICAL: "bit for bit",
    Outcome.WITHIN_TOLERANCE: "within the certified tolerance",
    Outcome.DIFFERS: "differ",
    Outcome.NOT_DERIVABLE: "not derivable",
}


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
