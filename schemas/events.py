"""The control events: every decision about a model's versions, as CloudEvents 1.0.

One event is one record on the model's control topic, in structured JSON mode. Extensions:

- ``sequence`` (with ``sequencetype`` ``Integer``): the revision, dense from 1, as the CloudEvents
  sequence extension writes it: a string of digits.
- ``previous``: ``sha256:`` of the bytes of the accepted event before; absent on the first. The hash
  of the first event is the log's identity.
- ``commandid``: the command that appended the event. Events of one command share it; an append that
  is repeated after a doubtful commit finds it in the log.
- ``actor``: who gave the command.
- ``signature`` and ``keyid`` are reserved.

Unknown keys are accepted. An event of an unknown type is kept and counts as a revision; what it
says is skipped (``data`` is then ``None``).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from schemas.manifest import Digest, digest_of

TYPE_PREFIX = "io.modelwire."
TYPE_SUFFIX = ".v1"

ModelName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}(?!\n)$")]
Version = Annotated[int, msgspec.Meta(ge=1)]
BasisPoints = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
StepNumber = Annotated[int, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=2_000)]
CommandId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Actor = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class EventData(msgspec.Struct, frozen=True):
    """What an event says. One subclass for each type."""


class ModelReleased(EventData, frozen=True):
    """A bundle got its ordinal: ``version`` is the number of releases so far, from 1."""

    version: Version
    digest: Digest
    reason: Text = ""


class ModelRevoked(EventData, frozen=True):
    """The version must never answer again."""

    version: Version
    reason: Text = ""


class ModelRetired(EventData, frozen=True):
    """The version is no longer needed: consumers may drop it."""

    version: Version
    reason: Text = ""


class PlanStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of a plan: a pause, or the candidate's shares. A share that is not named is 0.

    ``hold_seconds`` is how long the step lasts at least, from its event on.
    """

    weight: BasisPoints = 0
    shadow: BasisPoints = 0
    hold_seconds: Annotated[float, msgspec.Meta(ge=0, le=31_622_400)] = 0.0
    pause: bool = False


class Guard(msgspec.Struct, frozen=True):
    """When a controller aborts by itself.

    The candidate was rejected at least ``least`` times, and at ``factor`` times the champion's rate or
    more; or instances ended without saying goodbye ``crashes`` times while the rollout ran.
    """

    factor: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    least: Annotated[int, msgspec.Meta(ge=1)] = 50
    crashes: Annotated[int, msgspec.Meta(ge=1)] = 5


class Plan(msgspec.Struct, frozen=True):
    """What a controller does with a rollout, step after step.

    ``analysis`` names what judges a step at its end. After the last step, at a weight of 10,000, the
    candidate is promoted; at another weight the rollout stays there for a person.
    """

    steps: Annotated[tuple[PlanStep, ...], msgspec.Meta(min_length=1, max_length=100)]
    analysis: Annotated[str, msgspec.Meta(max_length=64)] = "fixed-time"
    guard: Guard = Guard()


class RolloutStarted(EventData, frozen=True):
    """``candidate`` is to be loaded beside the champion. Its weight is 0 until it is shifted.

    The rollout is named by the revision of this event. ``salt`` makes its sticky routing its own.
    With ``strategy`` ``shadow`` it never gets a weight, and others may run beside it. ``min_ready``
    (basis points of the live instances) must be ready before traffic moves. ``plan`` is None where a
    person moves it by hand.
    """

    candidate: Version
    strategy: Annotated[str, msgspec.Meta(max_length=64)]
    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    reason: Text = ""
    plan: Plan | None = None
    min_ready: BasisPoints = 10_000


class RolloutShifted(EventData, frozen=True):
    """The candidate of ``rollout`` answers ``weight`` basis points (0 … 10,000) of the keys, and scores
    ``shadow`` basis points of them for nobody to see.

    ``step`` is the place in the plan (from 0) that this carries out, None where a person moved it.
    """

    rollout: int
    weight: BasisPoints = 0
    shadow: BasisPoints = 0
    reason: Text = ""
    step: StepNumber | None = None


class RolloutPaused(EventData, frozen=True):
    """The plan of ``rollout`` waits until it is resumed; the shares stay. ``step`` as in a shift."""

    rollout: int
    reason: Text = ""
    step: StepNumber | None = None


class RolloutResumed(EventData, frozen=True):
    """The plan of ``rollout`` goes on with its next step."""

    rollout: int
    reason: Text = ""


class RolloutPromoted(EventData, frozen=True):
    """The candidate of ``rollout`` is the champion now, and the rollout is over."""

    rollout: int
    version: Version
    reason: Text = ""


class RolloutAborted(EventData, frozen=True):
    """The rollout is over, and the champion answers everything again."""

    rollout: int
    reason: Text = ""


class ModelRestored(EventData, frozen=True):
    """``version``, released before, is the champion again in place of ``replaced``."""

    version: Version
    replaced: Version
    reason: Text = ""


EVENT_TYPES: dict[str, type[EventData]] = {
    f"{TYPE_PREFIX}{what}{TYPE_SUFFIX}": data
    for what, data in (
        ("model.released", ModelReleased),
        ("model.revoked", ModelRevoked),
        ("model.retired", ModelRetired),
        ("model.restored", ModelRestored),
        ("rollout.started", RolloutStarted),
        ("rollout.shifted", RolloutShifted),
        ("rollout.paused", RolloutPaused),
        ("rollout.resumed", RolloutResumed),
        ("rollout.promoted", RolloutPromoted),
        ("rollout.aborted", RolloutAborted),
    )
}
_TYPE_OF = {data: name for name, data in EVENT_TYPES.items()}


class ControlEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The CloudEvent as it stands in the log."""

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    subject: ModelName
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    sequence: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,17}(?!\n)$")]
    sequencetype: Literal["Integer"] = "Integer"
    previous: Digest | UnsetType = UNSET
    commandid: CommandId
    actor: Actor
    signature: str | UnsetType = UNSET
    keyid: str | UnsetType = UNSET
    data: msgspec.Raw

    @property
    def revision(self) -> int:
        """The event's number in the log, from 1."""
        return int(self.sequence)


class Recorded(msgspec.Struct, frozen=True):
    """An event with what it says, and the hash of the bytes that it was read from."""

    event: ControlEvent
    data: EventData | None
    hash: str


class NotAnEvent(ValueError):
    """A record of the control log that has not the form of a control event."""


_envelope = msgspec.json.Decoder(ControlEvent)
_payloads = {name: msgspec.json.Decoder(data) for name, data in EVENT_TYPES.items()}


def decode_event(raw: bytes) -> Recorded:
    """An event from a record's value. Raises NotAnEvent, which says what is malformed."""
    try:
        event = _envelope.decode(raw)
        payload = _payloads.get(event.type)
        data = None if payload is None else payload.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAnEvent(str(error)) from None
    return Recorded(event, data, digest_of(raw))


def encode_event(event: ControlEvent) -> bytes:
    """The bytes that are appended, hashed and never changed."""
    return msgspec.json.encode(event)


def new_event(
    data: EventData,
    *,
    model: str,
    revision: int,
    previous: str | None,
    commandid: str,
    actor: str,
    time: datetime,
) -> ControlEvent:
    """The event that says ``data`` at ``revision``. ``time`` must know its zone."""
    extras: dict[str, Any] = {} if previous is None else {"previous": previous}
    return ControlEvent(
        id=f"{commandid}/{revision}",
        source=f"/modelwire/{model}",
        type=_TYPE_OF[type(data)],
        subject=model,
        time=time,
        sequence=str(revision),
        commandid=commandid,
        actor=actor,
        data=msgspec.Raw(msgspec.json.encode(data)),
        **extras,
    )
