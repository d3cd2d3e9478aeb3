"""Answers derived once more: from the request, the control log and the bundle in the store, to the bit.

An answer's revision says which deployment gave it. That deployment is folded from the log, its models
are loaded from the store, the request, as it lies in its own topic, is scored alone, and what comes out
must be the very bytes that stand in the results. (`audit verify` makes the request again of the answer.)
"""

from random import Random

from adapters.bundles import StoredBundles
from adapters.control_log import read_log
from audit.derivation import Derivation, Loaded
from audit.history import History
from deployment.state import Deployment
from schemas.forecast import decode_forecast
from scoring.batch import ForecastAnswer, Incoming, answer
from scoring.snapshot import LoadedVersion, snapshot_of
from tests.fleet import Harness
from tests.traffic import Record

READ_SECONDS = 120.0


class Rederivation:
    """What the log and the store make of a model's requests."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        log = read_log(harness.settings, harness.model)
        self._history = History(harness.model, log.events)
        self._derivation = Derivation(StoredBundles(harness.store))
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
        deployment = self._history.at(said.revision)
        assert deployment is not None
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
        loaded = self._derivation.version(deployment, number)
        assert isinstance(loaded, Loaded), loaded
        return loaded.version
