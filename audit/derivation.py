"""Answers derived again: the deployment at their revision, its bundles by digest, and ``scoring``.

1. A request is made again of what the answer kept: its key, its id and its inputs, or, where it was
   rejected, its own bytes. Of bytes that were not kept the size is known: enough to reject them again
   where nothing else was looked at.
2. Everything else is production's own way (``scoring.batch``): routing, decoding, padding, the model.
3. A request that brought a runtime down is not run again, and a forecast that was too large for its topic
   says nothing of the topic's limit: both rejections are not derivable.

Requests of a revision are run together; that changes no bit of an answer (``scoring.arrays``).
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from adapters.bundles import BundleDamaged, Bundles, NoManifest
from adapters.object_store import StoreUnavailable
from adapters.onnx_model import load_onnx_model, runtime_name
from audit.kept import Kept
from audit.verdicts import Fault, What
from deployment.routing import route, routing_of
from deployment.state import Deployment
from schemas.errors import ModelwireError, NotFound
from schemas.forecast import Forecast, Variant, decode_forecast
from schemas.manifest import MODEL_NAME, Manifest
from schemas.rejection import Reason, Rejection
from schemas.request import UNREADABLE, decode_envelope
from scoring.batch import ForecastAnswer, Incoming, answer
from scoring.snapshot import LoadedVersion, load, snapshot_of

BATCH = 512
"""Requests that are run together, as a consumer does."""

MOST_LOADED = 8
"""Models that are kept in memory, those used last."""

MOST_ANSWER_BYTES = 64 * 1024 * 1024
"""No answer was larger: no topic takes such a record."""

_MOST_SIZE = 16 * 1024 * 1024
"""Of a request whose bytes were not kept: no topic of requests takes more."""

NOT_RUN_AGAIN = "its request brought a runtime down, and is not run again"
NO_LIMIT_KNOWN = "the limit of its topic then is not known"
NOT_KEPT = "the request's bytes were not kept"

_NOT_DERIVED = {Reason.MODEL_CRASH: NOT_RUN_AGAIN, Reason.ANSWER_TOO_LARGE: NO_LIMIT_KNOWN}


class NotDerivable(msgspec.Struct, frozen=True):
    """There is no way to derive the answer here, and why."""

    why: str


class Derived(msgspec.Struct, frozen=True):
    """What came out, and the manifest of the bundle that gave it; None where none was asked."""

    said: Forecast | Rejection
    manifest: Manifest | None


Again = Derived | NotDerivable | Fault


class _Request(msgspec.Struct, frozen=True):
    request_id: str
    inputs: msgspec.Raw


class _Envelope(msgspec.Struct):
    size: int = 0


class Loaded(msgspec.Struct, frozen=True):
    """A version ready to run, and its bundle's manifest."""

    version: LoadedVersion
    manifest: Manifest


Tried = Loaded | NotDerivable | Fault

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Of the scoring: each answer is compared under its own."""


class Derivation:
    """Derives answers of one model. Not thread-safe."""

    def __init__(self, bundles: Bundles) -> None:
        self.runtime = runtime_name()
        """What answers are derived on here."""
        self._bundles = bundles
        self._loaded: OrderedDict[tuple[int, str], Tried] = OrderedDict()

    def derive(self, deployment: Deployment, kept: Sequence[Kept]) -> list[Again]:
        """What comes of each request at this deployment, in order.

        Raises StoreUnavailable where the store cannot be asked.
        """
        if deployment.champion is None:
            why = f"at revision {deployment.revision} no version answered anything"
            return [Fault(What.ROUTING, why)] * len(kept)
        tried = {number: self.version(deployment, number) for number in deployment.required()}
        found: list[Again | None] = []
        asked: list[tuple[int, Incoming]] = []
        for place, each in enumerate(kept):
            incoming = incoming_of(each)
            found.append(incoming if isinstance(incoming, NotDerivable) else None)
            if isinstance(incoming, Incoming):
                needs = tried[_routed(deployment, incoming, each)]
                if isinstance(needs, Loaded):
                    asked.append((place, incoming))
                else:
                    found[place] = needs
        loaded = {number: each for number, each in tried.items() if isinstance(each, Loaded)}
        for first in range(0, len(asked), BATCH):
            part = asked[first : first + BATCH]
            answers = self._answer(deployment, loaded, [incoming for _, incoming in part])
            for (place, _), said in zip(part, answers, strict=True):
                found[place] = _conclude(kept[place], said, loaded)
        return [each for each in found if each is not None]

    def _answer(
        self, deployment: Deployment, loaded: Mapping[int, Loaded], batch: Sequence[Incoming]
    ) -> list[Forecast | Rejection]:
        # A version that could not be loaded gets none of these requests; another one has its place.
        any_loaded = next(iter(loaded.values())).version
        versions = {
            number: loaded[number].version if number in loaded else _renamed(any_loaded, number)
            for number in deployment.required()
        }
        answers = answer(
            snapshot_of(deployment, versions),
            batch,
            scored_at=_NO_TIME,
            instance="",
            runtime=self.runtime,
            max_answer_bytes=MOST_ANSWER_BYTES,
        )
        return [
            decode_forecast(each.value) if isinstance(each, ForecastAnswer) else each.rejection
            for each in answers
        ]

    def version(self, deployment: Deployment, number: int) -> Tried:
        """A version that was released, loaded; or why it is not. Raises StoreUnavailable."""
        name = (number, deployment.releases[number].digest)
        if name in self._loaded:
            self._loaded.move_to_end(name)
        else:
            self._loaded[name] = self.load(*name)
            if len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)
        return self._loaded[name]

    def load(self, number: int, digest: str) -> Tried:
        """The version of this bundle, loaded anew; or why it is not. Raises StoreUnavailable."""
        try:
            manifest = self._bundles.read_manifest(digest)
            content = self._bundles.read_file(digest, manifest, MODEL_NAME)
        except StoreUnavailable:
            raise
        except (BundleDamaged, NoManifest, NotFound) as error:
            return Fault(What.BUNDLE, error.message)
        try:
            version = load(number, digest, manifest.contract, load_onnx_model(content))
        except ModelwireError as error:
            return NotDerivable(f"version {number} cannot be run here: {error.message}")
        return Loaded(version, manifest)


def incoming_of(kept: Kept) -> Incoming | NotDerivable:
    """The request of an answer that was read, as far as it can be made again (rule 1)."""
    record, said = kept.record, kept.said
    assert record is not None
    assert said is not None
    if isinstance(said, Forecast):
        value: bytes | None = msgspec.json.encode(_Request(said.request_id, said.inputs))
    elif said.reason in _NOT_DERIVED:
        return NotDerivable(_NOT_DERIVED[Reason(said.reason)])
    elif not kept.is_enveloped:
        value = record.value
    elif said.reason == Reason.TOMBSTONE:
        value = None
    elif said.reason in (Reason.EMPTY, Reason.TOO_LARGE):
        value = bytes(min(_size_in(record.value), _MOST_SIZE))
    else:
        return NotDerivable(NOT_KEPT)
    source = said.source
    return Incoming(
        source.topic, source.partition, source.offset, source.timestamp, record.key, value
    )


def _conclude(
    kept: Kept, said: Forecast | Rejection, loaded: Mapping[int, Loaded]
) -> Derived | NotDerivable:
    given = kept.said
    if isinstance(given, Rejection) and isinstance(said, Rejection) and kept.is_enveloped:
        is_by_size = Reason.TOO_LARGE in (given.reason, said.reason)
        if is_by_size and said.reason != given.reason:
            return NotDerivable(NOT_KEPT)  # its size alone was not enough to reject it
    answered_by = loaded.get(said.version)
    return Derived(said, None if answered_by is None else answered_by.manifest)


def _routed(deployment: Deployment, incoming: Incoming, kept: Kept) -> int:
    """The version that answers this request; the champion where it is none that can be routed."""
    routing = routing_of(deployment)
    assert routing is not None
    said = kept.said
    if isinstance(said, Rejection) and not said.version:
        return routing.champion
    request_id = said.request_id if isinstance(said, Forecast) else _id_in(incoming.value)
    variant = route(routing, incoming.key, request_id)
    if variant is Variant.CANDIDATE and routing.candidate is not None:
        return routing.candidate
    return routing.champion


def _renamed(version: LoadedVersion, number: int) -> LoadedVersion:
    return replace(version, version=number)


def _size_in(envelope: bytes | None) -> int:
    try:
        return max(msgspec.json.decode(envelope or b"", type=_Envelope).size, 0)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def _id_in(value: bytes | None) -> str:
    try:
        return decode_envelope(value or b"").request_id
    except UNREADABLE:
        return ""
