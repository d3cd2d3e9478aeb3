"""The error family that every part shares: what the world sent us that we cannot use.

Two families exist. A bug (a caller that misused a function) is an ordinary ``ValueError`` or
``TypeError`` and ends in a traceback. Everything here is the other family: bad data, a missing
file, a refused connection, a rule that says no. The edge that meets a foreign exception turns it
into one of these; the command line prints ``message`` and ``hint`` and exits with ``exit_code``.

A message says what was found and where. The hint says what to do next.
"""

from typing import ClassVar


class ModelwireError(Exception):
    """Something outside this program is not as it must be."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", details: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        """What stands below the message, such as a row for each instance; ``str`` makes its line."""


class UsageProblem(ModelwireError):
    """The command or its configuration does not say what it must say."""

    exit_code = 2


class RefusedByRule(ModelwireError):
    """A rule of the deployment, or a gate, said no."""

    exit_code = 3


class NotFound(ModelwireError):
    """A thing that was named does not exist."""

    exit_code = 4


class Conflict(ModelwireError):
    """Another writer won, or what exists differs from what was about to be written."""

    exit_code = 5


class TimedOut(ModelwireError):
    """The wait is over and the thing has not happened; it may still happen."""

    exit_code = 124
