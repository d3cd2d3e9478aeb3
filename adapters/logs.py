"""The process's log lines on stderr: one JSON object a line for machines, short lines for people.

1. A machine's line has the field names of the Elastic Common Schema (ECS). What happened is
   ``event.action`` (``snapshot.applied``), and ``message`` too, so that a viewer shows it.
2. The instance is ``service.node.name``, an exception ``error.*``. Every other field that a caller gives
   stands under ``modelwire.``, where it can collide with no name of the schema, now or later.
3. No text is longer than ``LONGEST_TEXT``, whatever a broker, a store or a runtime had to say: a line
   must fit the collectors that read it.
4. Logging costs the process nothing, whatever becomes of stderr: a machine's lines may be lost, and are
   counted (``adapters.stderr``).

``docs/logs.md`` lists the events and their fields. What is worth a line is the callers' business; none
is written a request, and none holds what a request holds.
"""

import logging
import os
import sys
import traceback
from importlib.metadata import version as version_of
from types import TracebackType
from typing import cast

import structlog
from ecs_logging import StructlogFormatter

from adapters.stderr import StderrLines

SERVICE = "modelwire"

LONGEST_TEXT = 2_000
"""Characters of one field. A container runtime cuts lines at 16 KiB, and a line has few long fields."""

log = structlog.get_logger()

_lines: StderrLines | None = None


def configure_logs(*, as_json: bool, level: int = logging.INFO) -> None:
    """Send structlog to stderr, as JSON for machines or as short lines for people.

    What is below ``level`` is left out.
    """
    global _lines
    _lines = StderrLines(_descriptor(), _say_lost) if as_json else None
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="@timestamp"),
            *(_for_machines() if as_json else _for_people()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr)
        if _lines is None
        else _lines_logger,
        cache_logger_on_first_use=True,
    )


def drain_logs() -> None:
    """Wait a moment for a machine's lines to be written: for an end that is none of the interpreter's."""
    if _lines is not None:
        _lines.drain()


def _lines_logger(*_names: object) -> StderrLines:
    assert _lines is not None
    return _lines


def _descriptor() -> int | None:
    """Stderr's; None where the process was started without one, whose number another file then has."""
    return None if sys.stderr is None else sys.stderr.fileno()


def _say_lost(lines: int) -> None:
    log.warning("log.lines_lost", lines=lines)


def _for_people() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]


def _for_machines() -> list[structlog.typing.Processor]:
    formatter = cast(structlog.typing.Processor, StructlogFormatter())  # it asks for a plain dict
    return [_EcsNames(version_of("modelwire")), formatter]


class _EcsNames:
    """Gives an event's fields the names of rules 1 and 2; the formatter adds level and message."""

    def __init__(self, version: str) -> None:
        self._version = version

    def __call__(
        self, _logger: object, _method: str, line: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event = str(line.pop("event"))
        named: structlog.typing.EventDict = {
            "@timestamp": line.pop("@timestamp"),
            "event": event,  # which the formatter makes the message
            "event.action": event,
            "process.pid": os.getpid(),
            "service.name": SERVICE,
            "service.version": self._version,
        }
        if (instance := line.pop("instance", None)) is not None:
            named["service.node.name"] = instance
        if (error := _error_of(line.pop("exc_info", None))) is not None:
            named["error.type"] = type(error).__name__
            named["error.message"] = _shortened(str(error))
            named["error.stack_trace"] = _shortened("".join(traceback.format_exception(error)))
        if line:
            named[SERVICE] = {name: _shortened(value) for name, value in line.items()}
        return named


def _error_of(
    given: bool
    | BaseException
    | tuple[type[BaseException], BaseException, TracebackType | None]
    | tuple[None, None, None]
    | None,
) -> BaseException | None:
    """The exception that a caller means by ``exc_info``, in each of the ways that logging allows."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1]
    return sys.exc_info()[1] if given else None


def _shortened(value: object) -> object:
    """``value``, a long text with its middle left out: the cause of an error stands at either end."""
    if not isinstance(value, str) or len(value) <= LONGEST_TEXT:
        return value
    half = LONGEST_TEXT // 2 - 10
    return f"{value[:half]} […] {value[-half:]}"
