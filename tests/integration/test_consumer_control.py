"""The follower on a real broker: long logs, and stamps that are looked for while the broker is away."""

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from adapters.control_log import read_log
from adapters.settings import Settings
from consumer.control import KEPT_STATES, Follower
from deployment.commands import Release
from deployment.ledger import Ledger
from deployment.state import Deployment, short_hash
from schemas.events import ModelReleased, Recorded, encode_event, new_event
from schemas.manifest import digest_of
from tests.fleet import LIMIT_SECONDS, Harness, wait_for
from tests.wire import Wire

pytestmark = pytest.mark.stack


class Considered:
    """What the follower hands to the loader."""

    def __init__(self) -> None:
        self.states: list[Sequence[Deployment]] = []

    def consider(self, deployments: Sequence[Deployment]) -> None:
        """Keep them."""
        self.states.append(deployments)


@pytest.fixture
def wire(harness: Harness) -> Iterator[Wire]:
    """The way to the broker for clients that know no other yet."""
    opened = Wire(harness.settings.kafka.bootstrap_servers)
    yield opened
    opened.cut()


def _follow(settings: Settings, model: str, loader: Considered) -> Follower:
    follower = Follower(settings, model, loader, lambda: None)  # type: ignore[arg-type]
    follower.start()
    wait_for("the log's end", lambda: follower.heard.caught_up)
    return follower


def test_of_a_long_log_only_the_latest_states_are_handed_on(harness: Harness) -> None:
    """What lies far back is never applied, and ten thousand states would only fill the memory."""
    count = KEPT_STATES + 40
    ledger, producer = Ledger(harness.model), harness.producer()
    for number in range(1, count + 1):
        event = new_event(
            ModelReleased(number, digest_of(str(number).encode())),
            model=harness.model,
            revision=number,
            previous=ledger.deployment.head,
            commandid=uuid.uuid4().hex,
            actor="test",
            time=datetime.now(UTC),
        )
        assert isinstance(ledger.take(encode_event(event)), Recorded)
        producer.produce(harness.topics.control, encode_event(event), partition=0)
    assert producer.flush(LIMIT_SECONDS) == 0
    loader = Considered()
    follower = _follow(harness.settings, harness.model, loader)
    follower.stop()
    [states] = loader.states
    assert [state.revision for state in states] == list(range(count - KEPT_STATES + 1, count + 1))
    assert follower.heard.deployment == ledger.deployment


def test_a_stamp_that_cannot_be_looked_for_is_no_failure(harness: Harness, wire: Wire) -> None:
    """With no broker to ask it is not known yet; the log is followed on, and the next try comes later."""
    harness.command(Release(digest_of(b"1"), None, ""))
    kafka = harness.settings.kafka.model_copy(update={"bootstrap_servers": wire.address})
    settings = harness.settings.model_copy(update={"kafka": kafka})
    loader = Considered()
    follower = _follow(settings, harness.model, loader)
    deployment = read_log(harness.settings, harness.model).deployment
    assert deployment.log_id is not None
    ahead = f"{short_hash(deployment.log_id)}:{deployment.revision + 5}:{'0' * 16}"
    wire.cut()  # the follower's connection is to the broker itself by now; a new client finds no way
    with capture_logs() as lines:
        follower.confirm(deployment.stamp)  # read already: not worth a look
        follower.confirm(ahead)
        wait_for("a try", lambda: _said(lines, "control.not_confirmed"))
        for revision in (2, 3):  # a reading at each request would keep it from the second one
            harness.command(Release(digest_of(b"%d" % revision), None, ""))

            def look(revision: int = revision) -> bool:
                follower.confirm(ahead)
                return follower.heard.deployment.revision == revision

            wait_for("the next event", look)
    follower.stop()
    [line] = _said(lines, "control.not_confirmed")
    assert line["stamps"] == [ahead]
    assert "no Kafka broker answered" in line["problem"]
    assert follower.failure is None


def _said(lines: Sequence[dict[str, object]], event: str) -> list[dict[str, object]]:
    return [line for line in lines if line["event"] == event]
