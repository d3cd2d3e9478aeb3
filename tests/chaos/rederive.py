"""Answers derived once more: from the request, the control log and the bundle in the store, to the bit.

An answer's revision says which deployment gave it. That deployment is folded from the log, its models
are loaded from the store, the request is scored alone, and what comes out must be the very bytes that
stand in the results.
"""

from random import Random

from adapters.bundles import read_file, read_manifest
from adapters.control_log import read_log
from adapters.onnx_model import load_onnx_model
from deployment.ledger import Ledger
from deployment.state import Deployment
from schemas.events import encode_event
from schemas.forecast import decode_forecast
from schemas.manifest import MODEL_NAME
from scoring.batch import ForecastAnswer, Incoming, answer
from scoring.snapshot import LoadedVersion, load, snapshot_of
from tests.fleet import Harness
from tests.traffic import Record

READ_SECONDS = 120.0


class Rederivation:
    """What the log and the store make of a model's requests."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._deployments = _deployments(harness)
        self._loaded: dict[int, LoadedVersion] = {}
        self._requests: dict[int, list[Record]] = {}
        for record in harness.records(harness.topics.requests, 0, READ_SECONDS):
            # No transaction writes requests, so an offset is a place in its partition.
            self._requests.setdefault(record.partition, []).append(record)

    def check(self, count: int, seed: int) -> tuple[int, list[str]]:
        """How many of the forecasts were derived once more, and those that came out otherwise."""
        results = self._harness.records(self._harness.topics.results, 0, READ_SECONDS)
        chosen = Random(f"{seed}: sample").sample(results, min(count, len(results)))
        wrong = []
        for record in chosen:
            derived, given = self.derive(record.value or b""), record.value
            if derived != given:
                wrong.append(f"given {given!r}, derived {derived!r}")
        return len(chosen), wrong

    def derive(self, given: bytes) -> bytes:
        """The forecast that the source of this one gets now."""
        said = decode_forecast(given)
        source = said.source
        request = self._requests[source.partition][source.offset]
        incoming = Incoming(
            source.topic,
            source.partition,
            source.offset,
            round(request.time * 1_000),
            request.key,
            request.value,
        )
        deployment = self._deployments[said.revision]
        loaded = {number: self._version(deployment, number) for number in deployment.required()}
        [again] = answer(
            snapshot_of(deployment, loaded),
            [incoming],
            scored_at=said.scored_at,
            instance=said.instance,
            runtime=said.runtime,
            max_answer_bytes=len(given) + 1_000,
        )
        return again.value if isinstance(again, ForecastAnswer) else repr(again.rejection).encode()

    def _version(self, deployment: Deployment, number: int) -> LoadedVersion:
        if number not in self._loaded:
            store, digest = self._harness.store, deployment.releases[number].digest
            manifest = read_manifest(store, digest)
            model = load_onnx_model(read_file(store, digest, manifest, MODEL_NAME))
            self._loaded[number] = load(number, digest, manifest.contract, model)
        return self._loaded[number]


def _deployments(harness: Harness) -> dict[int, Deployment]:
    """Revision -> the deployment there."""
    ledger = Ledger(harness.model)
    found = {}
    for recorded in read_log(harness.settings, harness.model).events:
        ledger.take(encode_event(recorded.event))
        found[ledger.deployment.revision] = ledger.deployment
    return found
