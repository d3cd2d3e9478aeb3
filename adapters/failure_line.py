"""The last log line of a service: what ended it, for whoever reads its lines instead of a terminal."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
import structlog

from schemas.errors import ModelwireError

log = structlog.get_logger()


@contextmanager
def failure_as_a_line(event: str, fields: Mapping[str, object]) -> Iterator[None]:
    """What ends the block is a log line with these fields, like all that a service says.

    Of an error of the world it has the next step, and no traceback; a person at a terminal reads that
    in words instead. What nobody foresaw has exit code 1.
    """
    try:
        yield
    except click.ClickException:
        raise
    except ModelwireError as error:
        if sys.stderr is not None and sys.stderr.isatty():
            raise
        said = error.with_traceback(None)
        said.__cause__ = None  # nor its cause's
        log.error(event, exc_info=said, exit_code=error.exit_code, next=error.hint, **fields)
        click.get_current_context().exit(error.exit_code)
    except Exception:  # a service says in a line, too, that it is broken
        log.exception(event, exit_code=1, **fields)
        click.get_current_context().exit(1)
