"""Takes the records of a stream and counts what is wrong with it, by the rules of the package."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from modelwire.checker.log import Log, fold
from modelwire.checker.report import Finding, Kind, Record, Report
from modelwire.checker.routes import Routes
from modelwire.checker.wire import (
    NOT_JSON,
    Answer,
    decode_envelope,
    decode_forecast,
    is_enveloped,
    read_rejection,
)

FINDINGS_A_KIND = 5
"""How many examples of each kind a report names; the counts are always complete."""

_DUE, _LATE, _REGRESSED = 1, 2, 4


class _Partition:
    """What is remembered of one request partition: columns indexed by ``offset - first``."""

    __slots__ = ("answers", "echo", "first", "flags", "revisions", "value")

    def __init__(self, first: int) -> None:
        self.first = first
        self.flags = bytearray()
        self.answers = bytearray()
        self.echo = array("q")
        self.value = array("q")
        self.revisions = array("q")

    def append(self, offset: int, flag: int, echo: int, value: int) -> None:
        gap = offset - self.first - len(self.flags)
        if gap < 0:
            raise ValueError(f"request offset {offset} came after a later one")
        self.flags.extend(bytes(gap) + bytes([flag]))
        self.answers.extend(bytes(gap + 1))
        for column, last in ((self.echo, echo), (self.value, value), (self.revisions, 0)):
            column.extend([0] * gap)
            column.append(last)

    def slot(self, offset: int) -> int | None:
        index = offset - self.first
        return index if 0 <= index < len(self.flags) and self.flags[index] else None


@dataclass
class _Claim:
    """Answers that say the same of their version: how many, and the first of them."""

    count: int
    example: str


class StreamCheck:
    """Takes records in the order of each partition and counts what is wrong.

    Call ``take_control`` where there is a control log, ``take_request`` for the requests that are due,
    then ``take_forecast`` and ``take_rejection``, then, where ``orphans`` is not 0,
    ``take_request(record, due=False)`` for the requests that came meanwhile, then ``take_control``
    again where the log may have grown, then ``report``. Answers to requests below ``first_held``
    (partition -> offset) are passed over.
    """

    def __init__(
        self,
        requests_topic: str,
        *,
        same_partitions: bool = False,
        first_held: Mapping[int, int] | None = None,
    ) -> None:
        self._topic = requests_topic
        self._same_partitions = same_partitions
        self._first_held = first_held or {}
        self._partitions: dict[int, _Partition] = {}
        self._counts: Counter[Kind] = Counter()
        self._findings: list[Finding] = []
        self._found: Counter[Kind] = Counter()
        self._forecasts = 0
        self._rejections = 0
        self._versions: Counter[int] = Counter()
        self._claims: dict[tuple[int, int, str, str, bool], _Claim] = {}
        self._log: Log | None = None
        self._control_problem = ""
        self._routes = Routes()
        self._newest: dict[tuple[str, int, int], int] = {}
        self._orphans: list[tuple[Record, Answer, bool]] = []
        self._due = 0
        self._due_answered = 0

    @property
    def unanswered(self) -> int:
        """How many due requests have no answer so far."""
        return self._due - self._due_answered

    @property
    def orphans(self) -> int:
        """How many answers name a request that has not been seen."""
        return len(self._orphans)

    @property
    def is_behind(self) -> bool:
        """Whether answers wait to be judged until more of the control log is known."""
        return self._routes.is_behind

    def take_control(self, values: Iterable[bytes]) -> None:
        """The control log as it is now: its records' values, from the first. Never called: no answer is
        judged by it. Called again, the log must begin with what it held before."""
        log = fold(values)
        if self._log is not None and not log.extends(self._log):
            self._control_problem = "the control log was rewritten while it was read"
        self._log = log
        for problem in self._routes.learn(log):
            self._note(Kind.WRONG_VARIANT, problem)

    def take_request(self, record: Record, *, due: bool = True) -> None:
        """A request. Raises ValueError where offsets of a partition do not rise."""
        columns = self._partitions.get(record.partition)
        if columns is None:
            columns = self._partitions[record.partition] = _Partition(record.offset)
        try:
            envelope = decode_envelope(record.value or b"")
            echo = _echo_of(record, record.timestamp, envelope.request_id, envelope.inputs)
        except NOT_JSON:
            echo = 0
        value = hash((record.key, record.timestamp, record.value))
        columns.append(record.offset, _DUE if due else _LATE, echo, value)
        self._due += due

    def take_forecast(self, record: Record) -> None:
        """A record of the results topic."""
        self._forecasts += 1
        try:
            answer = decode_forecast(record.value or b"")
        except NOT_JSON as error:
            self._note(Kind.UNKNOWN, f"the forecast at {record} cannot be read: {error}")
            return
        self._versions[answer.version] += 1
        self._take(record, answer, is_forecast=True)

    def take_rejection(self, record: Record) -> None:
        """A record of the rejections topic."""
        self._rejections += 1
        try:
            answer = read_rejection(record)
        except (*NOT_JSON, KeyError, ValueError) as error:
            self._note(Kind.UNKNOWN, f"the rejection at {record} cannot be read: {error}")
            return
        self._take(record, answer, is_forecast=False)

    def report(self) -> Report:
        """The counts."""
        orphans, self._orphans = self._orphans, []
        for record, answer, is_forecast in orphans:
            self._take(record, answer, is_forecast=is_forecast)
        for record, answer, _ in self._orphans:
            self._note_orphan(record, answer)
        self._judge_requests()
        log = self._log
        if log is not None:
            self._judge_versions(log)
        shares = self._routes.finish()
        return Report(
            requests=self._due + self._late_answered(),
            forecasts=self._forecasts,
            rejections=self._rejections,
            **{kind.value: self._counts[kind] for kind in Kind},
            versions=dict(sorted(self._versions.items())),
            version_checked=log is not None,
            variant_unchecked=self._routes.unchecked,
            shares=shares,
            control_problem=self._control_problem or ("" if log is None else log.problem),
            findings=tuple(self._findings),
        )

    def _take(self, record: Record, answer: Answer, *, is_forecast: bool) -> None:
        source = answer.source
        columns = self._partitions.get(source.partition)
        slot = None if columns is None else columns.slot(source.offset)
        if columns is None or slot is None or source.topic != self._topic:
            self._orphans.append((record, answer, is_forecast))
            return
        columns.answers[slot] = min(columns.answers[slot] + 1, 255)
        if columns.answers[slot] == 1:
            columns.revisions[slot] = answer.revision
            self._due_answered += columns.flags[slot] & _DUE
        else:
            self._note_double(record, answer, columns.answers[slot])
        self._check_order_of_answers(record, answer, columns, slot)
        self._check_echo(record, answer, columns, slot, is_forecast=is_forecast)
        if is_forecast and self._same_partitions and record.partition != source.partition:
            self._note(
                Kind.WRONG_PARTITION,
                f"the forecast at {record} answers partition {source.partition}",
            )
        claim = (answer.revision, answer.version, answer.digest, answer.variant, is_forecast)
        known = self._claims.get(claim)
        if known is None:
            known = self._claims[claim] = _Claim(0, str(record))
        known.count += 1
        if self._log is not None and (is_forecast or answer.version):
            self._check_variant(record, answer, is_forecast=is_forecast)

    def _check_order_of_answers(
        self, record: Record, answer: Answer, columns: _Partition, slot: int
    ) -> None:
        stream = (record.topic, record.partition, answer.source.partition)
        newest = self._newest.get(stream, 0)
        if answer.revision >= newest:
            self._newest[stream] = answer.revision
            return
        columns.flags[slot] |= _REGRESSED
        self._note(
            Kind.REVISION_REGRESSION,
            f"the answer at {record} to {_where(answer)} has revision {answer.revision}; the log "
            f"already held one with revision {newest} for that request partition",
        )

    def _check_echo(
        self, record: Record, answer: Answer, columns: _Partition, slot: int, *, is_forecast: bool
    ) -> None:
        stamp = answer.source.timestamp
        if is_forecast:
            right = columns.echo[slot] == _echo_of(record, stamp, answer.request_id, answer.inputs)
            parts = "timestamp, key, request_id or inputs"
        elif is_enveloped(record):
            return
        else:
            right = columns.value[slot] == hash((record.key, stamp, record.value))
            parts = "timestamp, key or value"
        if not right:
            self._note(
                Kind.WRONG_ECHO,
                f"the answer at {record} to {_where(answer)} does not echo its {parts}",
            )

    def _check_variant(self, record: Record, answer: Answer, *, is_forecast: bool) -> None:
        sticky = record.key
        if sticky is None:
            sticky = answer.request_id.encode() if is_forecast else _request_id_of(record)
        problem = self._routes.take(record, answer.revision, answer.variant, sticky)
        if problem:
            self._note(Kind.WRONG_VARIANT, problem)

    def _judge_requests(self) -> None:
        for number, columns in sorted(self._partitions.items()):
            newest = 0
            for index, flags in enumerate(columns.flags):
                if not flags:
                    continue
                revision = columns.revisions[index]
                where = f"{self._topic}/{number}/{columns.first + index}"
                if columns.answers[index] == 0:
                    if flags & _DUE:
                        self._note(Kind.LOST, f"the request at {where} has no answer")
                elif revision >= newest:
                    newest = revision
                elif not flags & _REGRESSED:
                    self._note(
                        Kind.REVISION_REGRESSION,
                        f"the answer to {where} has revision {revision}; "
                        f"an earlier request of the partition was answered at {newest}",
                    )

    def _judge_versions(self, log: Log) -> None:
        for (revision, version, digest, variant, is_forecast), claim in self._claims.items():
            problem = log.judge(revision, version, digest, variant, is_forecast=is_forecast)
            if problem:
                self._note(
                    Kind.WRONG_VERSION,
                    f"{claim.count} answer(s), the first at {claim.example}: {problem}",
                    count=claim.count,
                )

    def _late_answered(self) -> int:
        return sum(
            1
            for columns in self._partitions.values()
            for index, flags in enumerate(columns.flags)
            if flags & _LATE and columns.answers[index]
        )

    def _note_double(self, record: Record, answer: Answer, answers: int) -> None:
        if answers == 2:
            self._note(
                Kind.DOUBLED, f"{_where(answer)} is answered more than once, again at {record}"
            )

    def _note_orphan(self, record: Record, answer: Answer) -> None:
        source = answer.source
        expired = source.offset < self._first_held.get(source.partition, 0)
        if expired and source.topic == self._topic:
            return
        self._note(
            Kind.UNKNOWN, f"the answer at {record} names {_where(answer)}, which is no request"
        )

    def _note(self, kind: Kind, sentence: str, *, count: int = 1) -> None:
        self._counts[kind] += count
        self._found[kind] += 1
        if self._found[kind] <= FINDINGS_A_KIND:
            self._findings.append(Finding(kind, sentence))


def check(
    requests: Iterable[Record],
    forecasts: Iterable[Record],
    rejections: Iterable[Record],
    control: Iterable[bytes] | None = None,
    *,
    requests_topic: str,
    same_partitions: bool = False,
) -> Report:
    """The report on records that are all at hand, each iterable in the order of its partitions."""
    stream = StreamCheck(requests_topic, same_partitions=same_partitions)
    if control is not None:
        stream.take_control(control)
    for record in requests:
        stream.take_request(record)
    for record in forecasts:
        stream.take_forecast(record)
    for record in rejections:
        stream.take_rejection(record)
    return stream.report()


def _echo_of(record: Record, timestamp: int, request_id: str, inputs: msgspec.Raw) -> int:
    return hash((record.key, timestamp, request_id, bytes(inputs)))


def _request_id_of(rejection: Record) -> bytes | None:
    if is_enveloped(rejection):
        return None
    try:
        return decode_envelope(rejection.value or b"").request_id.encode()
    except NOT_JSON:
        return None


def _where(answer: Answer) -> str:
    return f"{answer.source.topic}/{answer.source.partition}/{answer.source.offset}"
