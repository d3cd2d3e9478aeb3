"""How an error of the world is told on stderr: in lines for people, or as an object where ``-o`` says so.

A refusal's message begins with its code in brackets, which is stable. Live instances that are not as
they must be are rows below it.
"""

import re
from collections.abc import Sequence

from adapters.output import TABLE, as_text
from deployment.readiness import Lack
from schemas.errors import ModelwireError

_CODED = re.compile(r"\[(?P<code>[a-z][a-z0-9-]*)\] (?P<sentence>.*)", re.DOTALL)
_COLUMNS = ("instance", "version", "why")


def problem_text(problem: ModelwireError, output: str) -> str:
    """The problem as ``output`` (the option ``-o``) wants it. Bytes that were no text are escaped."""
    text = _lines(problem) if output == TABLE else as_text(output, problem_object(problem))
    return _printable(text)


def problem_object(problem: ModelwireError) -> dict[str, object]:
    """The problem for programs; ``code`` is None where it is not a rule's refusal."""
    message = _printable(problem.message)
    coded = _CODED.fullmatch(message)
    rows = [each for each in problem.details if isinstance(each, Lack)]
    return {
        "error": coded["sentence"] if coded else message,
        "code": coded["code"] if coded else None,
        "hint": _printable(problem.hint) or None,
        "exit_code": problem.exit_code,
        "instances": [
            {"instance": row.instance, "version": row.version, "why": row.why} for row in rows
        ],
    }


def _lines(problem: ModelwireError) -> str:
    rows = [each for each in problem.details if isinstance(each, Lack)]
    others = [str(each) for each in problem.details if not isinstance(each, Lack)]
    table = _table([(row.instance, str(row.version), row.why) for row in rows])
    hint = [f"next: {problem.hint}"] if problem.hint else []
    return "\n  ".join([f"error: {problem.message}", *table, *others, *hint])


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Aligned columns under their names; nothing of nothing. The last one is as long as it is."""
    if not rows:
        return []
    cells = [_COLUMNS, *rows]
    name, number = (max(len(row[column]) for row in cells) for column in (0, 1))
    return [f"{row[0]:<{name}}  {row[1]:<{number}}  {row[2]}" for row in cells]


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
