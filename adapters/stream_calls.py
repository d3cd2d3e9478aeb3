"""Calls of the request stream: made again while that helps, watched, and what their errors amount to.

1. An error of a call is one of three: the same call again (done here), the transaction can only be
   aborted (for ``answer_writer``), or ``StreamFailed`` and its like, after which the process ends.
2. What does not pass by itself is never repeated: a permission that is lacking, a place that was taken.
3. A call that does not come back long after its own limit ends the process (``adapters.watchdog``).
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from adapters.kafka import FENCED, NOT_ALLOWED, explain
from adapters.settings import Settings
from adapters.watchdog import Watchdog
from schemas.errors import Conflict, ModelwireError

CALL_SECONDS = 5.0
"""Limit of one call to the broker; a call that may be repeated is."""

STUCK_SECONDS = 12.0
"""A call that has not come back by then, long after its own limit, never will."""

PAUSE_SECONDS = 0.05
"""Between two attempts of a call that failed at once."""

COMPLAINT_SECONDS = 5.0
"""Between two log lines of a call that goes on failing."""

log = structlog.get_logger()
Result = TypeVar("Result")


class StreamFailed(ModelwireError):
    """The stream cannot go on in this process; a restart of the slot can."""


class PlaceTaken(StreamFailed):
    """Another process has this instance's place: of the two only one can go on."""

    exit_code = Conflict.exit_code


class Calls:
    """The calls of one instance, made by one thread.

    ``give_up`` is asked while a call is repeated; True ends the repeating with an error.
    """

    def __init__(
        self, settings: Settings, model: str, instance: str, give_up: Callable[[], bool]
    ) -> None:
        self.give_up = give_up
        self._servers = settings.kafka.bootstrap_servers
        self._model = model
        self._instance = instance
        self._watchdog = Watchdog(STUCK_SECONDS)

    def watching(self, what: str) -> AbstractContextManager[None]:
        """For the time of the block, a call is watched that tries to do ``what``."""
        return self._watchdog.watching(what)

    def repeat(
        self, what: str, call: Callable[[float], Result], *, every_error: bool = False
    ) -> Result:
        """The result of ``call``, made again while its error says that it may be (or on every error).

        ``call`` is given its limit in seconds. Raises ModelwireError, and KafkaException where the
        transaction can only be aborted.
        """
        complained = time.monotonic()
        while True:
            try:
                with self.watching(what):
                    return call(CALL_SECONDS)
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                is_final_here = is_final(error) or not (every_error or error.retriable())
                if is_final_here and not is_final(error) and error.txn_requires_abort():
                    raise
                if is_final_here or self.give_up():
                    raise self.failed(error, what) from raised
            if time.monotonic() - complained >= COMPLAINT_SECONDS:
                complained = time.monotonic()
                log.warning("stream.retry", what=what, error=error.name(), detail=error.str())
            time.sleep(PAUSE_SECONDS)

    def failed(self, error: KafkaError, what: str) -> ModelwireError:
        """The error of ours for a Kafka error that ended the attempt to do ``what``."""
        if error.code() in FENCED or "fenced" in error.str().lower():
            return PlaceTaken(
                f"another process took the place of {self._instance} while this one tried to {what}, "
                "or the broker ended a transaction that was open for too long",
                hint="run one process a slot; give each its own --slot; after a stall of more than "
                "consumer.transaction_timeout_ms, start it again",
            )
        return explain(error, what, self._servers, model=self._model)


def is_fatal(error: KafkaError) -> bool:
    """Whether the client is of no more use."""
    # A static member that was fenced reports the code _FATAL on an error whose fatal() is False.
    return error.fatal() or error.code() == KafkaError._FATAL or error.code() in FENCED


def is_final(error: KafkaError) -> bool:
    """Whether no repeating and no new transaction helps: the client is dead, or not permitted."""
    return is_fatal(error) or error.code() in NOT_ALLOWED
