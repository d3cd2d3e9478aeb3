"""Writes a line for each answer to a stream, such as stdout, from where a collector takes it.

A stream that takes nothing holds up whoever writes: lines are not thrown away, as those of a consumer
are, since answers wait safely in Kafka meanwhile.
"""

from enum import StrEnum
from typing import BinaryIO

import pyarrow as pa

from adapters.answer_source import Place
from audit.lines import encode_line, is_sampled, line_of
from schemas.answer_file import Kind
from schemas.errors import ModelwireError

_ROWS = 1_000


class Which(StrEnum):
    """Which answers have lines."""

    ALL = "all"
    REJECTIONS = "rejections"
    NONE = "none"


class LineWriter:
    """The lines of a model's answers. ``share`` (0 … 1) of them have one; rejections always do."""

    def __init__(self, model: str, which: Which, share: float, stream: BinaryIO) -> None:
        self._model = model
        self._kinds = {Kind.REJECTIONS} if which is Which.REJECTIONS else set(Kind)
        self._share = share
        self._stream = stream

    def write(self, place: Place, table: pa.Table) -> None:
        """Write the lines of these rows. Raises ModelwireError where nobody reads the stream any more."""
        kind = place.kind
        if kind not in self._kinds:
            return
        share = 1.0 if kind is Kind.REJECTIONS else self._share
        try:
            for batch in table.to_batches(max_chunksize=_ROWS):
                lines = [
                    encode_line(line_of(kind, self._model, row))
                    for row in batch.to_pylist()
                    if is_sampled(row, share)
                ]
                if lines:
                    self._stream.write(b"\n".join(lines) + b"\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            raise ModelwireError(
                f"the log lines of answers cannot be written: {error}",
                hint="let something read them, or use --log-lines none; what is missing is written at "
                "the next start",
            ) from error
