"""The answer file: a stretch of one topic partition, as it is kept for the audit.

1. A file holds every committed record of the half-open range ``[first, next)`` of positions of one topic
   partition. Transactions leave holes in offsets, so a range is no count: files chain by position, each
   beginning where the one before ended.
2. Its records were all written on one day (UTC, by the broker's time). So its key follows from where it
   starts: the kind, the model, the day of the first record, the partition and ``first``. Of any number of
   writers at the same position one stores its file, and the others go on after it.
3. A file without records says that the topic no longer had its range when it was to be copied. It lies
   in the folder of the file before; where the chain begins, in that of ``NO_DAY``. So no two writers
   can go on from different places, however much was removed between their looks.
4. Its footer says what it covers, the digest of its records, and the digest of the bytes of the file
   before: an edited file does not match its own footer, or the footer of the one after it.
5. A record is kept so that it can be given back byte for byte.

Keys look like ``audit/forecasts/sales/2026-11-21/00003-00000000000000012345.parquet``. How records become
columns is in ``adapters.answer_rows``.
"""

import re
import struct
from collections.abc import Iterable
from datetime import date, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Literal

import msgspec

from schemas.errors import ModelwireError
from schemas.manifest import Digest

FOLDER = "audit"

NO_DAY = date(1970, 1, 1)
"""The folder of a first file that has no records."""

FOOTER_KEY = b"modelwire.answers"
"""The key of the footer among the Parquet file's own metadata."""

MAX_FILE_BYTES = 512 * 1024 * 1024
"""No answer file is larger, and none that says so is read."""

Position = Annotated[int, msgspec.Meta(ge=0)]


class Kind(StrEnum):
    """What the records of a file are."""

    FORECASTS = "forecasts"
    REJECTIONS = "rejections"
    SHADOW = "shadow"
    CONTROL = "control"


class FileDamaged(ModelwireError):
    """An answer file is not what it says."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A committed record. ``time_ms`` is the broker's, since 1970 (UTC)."""

    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class FileName(msgspec.Struct, frozen=True, order=True):
    """What a key says of its file."""

    kind: Kind
    model: str
    partition: int
    first: int
    day: date

    @property
    def key(self) -> str:
        """The key in the store."""
        folder = day_folder(self.kind, self.model, self.day)
        return f"{folder}/{self.partition:05d}-{self.first:020d}.parquet"


class Footer(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of itself. Unknown keys are accepted: later versions add some.

    ``topic_id`` is the cluster's id of the topic, empty where it is not known: positions are of this one.
    ``previous`` is the digest of the bytes of the file before, which ended at ``first``; empty where the
    chain begins. ``content`` is the records' ``ContentHash``. ``unreadable`` counts records that are
    nothing of this kind, which are kept as they are.
    """

    format: Literal["modelwire.answers/1"] = "modelwire.answers/1"
    kind: Kind
    model: str
    topic: str
    topic_id: str = ""
    partition: Position
    first: Position
    next: Position
    rows: Annotated[int, msgspec.Meta(ge=0)]
    content: Digest
    previous: Annotated[str, msgspec.Meta(pattern=r"^(sha256:[0-9a-f]{64})?(?!\n)$")] = ""
    unreadable: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def begins_chain(self) -> bool:
        """Whether no file came before."""
        return not self.previous

    @property
    def is_gap(self) -> bool:
        """Whether the topic no longer had these records when they were to be copied."""
        return not self.rows


_NAME = re.compile(
    rf"{FOLDER}/(?P<kind>{'|'.join(Kind)})/(?P<model>[a-z][a-z0-9-]{{0,62}})/"
    r"(?P<day>\d{4}-\d{2}-\d{2})/(?P<partition>\d{5,})-(?P<first>\d{20})\.parquet"
)


def kind_folder(kind: Kind, model: str) -> str:
    """The folder of a model's files of one kind."""
    return f"{FOLDER}/{kind}/{model}"


def day_folder(kind: Kind, model: str, day: date) -> str:
    """The folder of the files whose records were written on ``day`` (UTC)."""
    return f"{kind_folder(kind, model)}/{day.isoformat()}"


_LAST_DAY = (date.max - NO_DAY).days


def day_of(time_ms: int) -> date:
    """The day (UTC) of a record's time; a time that has no date falls on the first or the last one."""
    return NO_DAY + timedelta(days=min(max(time_ms // 86_400_000, 0), _LAST_DAY))


def parse_key(key: str) -> FileName | None:
    """What a key says; None where it is no answer file's."""
    found = _NAME.fullmatch(key)
    if found is None:
        return None
    try:
        day = date.fromisoformat(found["day"])
    except ValueError:
        return None
    kind = Kind(found["kind"])
    name = FileName(kind, found["model"], int(found["partition"]), int(found["first"]), day)
    return name if name.key == key else None


def encode_footer(footer: Footer) -> bytes:
    """The footer as it stands in the file's metadata."""
    return msgspec.json.encode(footer)


def decode_footer(raw: bytes) -> Footer:
    """A footer from a file's metadata. Raises ValueError (a msgspec error) where it is none."""
    return msgspec.json.decode(raw, type=Footer)


_HEAD = struct.Struct(">qqqqi")
_LENGTHS = struct.Struct(">qq")


def _length(content: bytes | None) -> int:
    return -1 if content is None else len(content)


class ContentHash:
    """The digest of a file's records, fed in the order of their offsets.

    SHA-256 over, for each record: offset, time, length of the key, length of the value (big-endian, 8
    bytes each, -1 for what is missing) and the number of headers (4 bytes), then key and value, then for
    each header the lengths (8 bytes) of its name and of its value, and the two.
    """

    def __init__(self) -> None:
        self._hash = sha256()

    def take(self, records: Iterable[Record]) -> None:
        """The next records."""
        parts: list[bytes] = []
        for record in records:
            key, value, headers = record.key, record.value, record.headers
            parts += (
                _HEAD.pack(
                    record.offset,
                    record.time_ms,
                    -1 if key is None else len(key),
                    -1 if value is None else len(value),
                    len(headers),
                ),
                key or b"",
                value or b"",
            )
            for name, content in headers:
                raw = name.encode()
                parts += (_LENGTHS.pack(len(raw), _length(content)), raw, content or b"")
        self._hash.update(b"".join(parts))

    @property
    def digest(self) -> str:
        """Of all that was taken."""
        return f"sha256:{self._hash.hexdigest()}"
