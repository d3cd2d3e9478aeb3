"""Which bundles may go: only those that nothing can ask for any more."""

from datetime import timedelta

from audit.retention import Stored, Use, Verdict, judge, uses_of
from deployment.commands import Abort, Retire, Revoke, Start, Strategy
from deployment.ledger import Ledger
from deployment.state import Standing
from tests.unit.example_rollouts import NOON, give, release

YEAR = timedelta(days=365)
MONTH = timedelta(days=30)
LONG_AGO = NOON - 10 * YEAR


def digest(digit: str) -> str:
    return f"sha256:{digit * 64}"


def stored(*digits: str, parent: str = "") -> list[Stored]:
    """Old bundles of these digests, each refreshed from ``parent``."""
    return [Stored(digest(digit), "sales", LONG_AGO, parent) for digit in digits]


def verdicts(
    ledger: Ledger, bundles: list[Stored], answers: dict[str, int] | None = None, days: float = 0
) -> dict[str, Verdict]:
    """First digit of the digest -> the verdict, so many days after noon."""
    found = judge(
        bundles,
        uses_of("sales", ledger.events),
        answers or {},
        now=NOON + timedelta(days=days),
        retention=YEAR,
        grace=MONTH,
    )
    return {each.stored.digest[7]: each for each in found}


def two_versions() -> Ledger:
    """sales:1 was champion until a day after noon, when sales:2 became it."""
    made = Ledger("sales")
    give(made, release("1", Strategy.BLUE_GREEN))
    give(made, release("2", Strategy.BLUE_GREEN), NOON + timedelta(days=1))
    return made


def test_what_may_serve_stays_however_old() -> None:
    """The champion serves; the one before may come back."""
    found = verdicts(two_versions(), stored("1", "2"), days=5_000)
    assert found["2"].why == "sales:2 serves"
    assert found["1"].why == "sales:1 may serve; retire it first"
    assert all(each.stays for each in found.values())


def test_a_retired_version_stays_while_its_answers_can_be_asked_for() -> None:
    """To the day: the retention counts from the event that ended its service, not from the retirement."""
    ledger = two_versions()
    give(ledger, Retire(1), NOON + timedelta(days=300))
    before = verdicts(ledger, stored("1"), days=365.9)["1"]
    assert (before.stays, before.why) == (True, "sales:1 answered until 2026-03-02")
    after = verdicts(ledger, stored("1"), days=366.1)["1"]
    assert (after.stays, after.why) == (
        False,
        "sales:1 is retired, and no kept answer refers to it",
    )


def test_a_kept_answer_keeps_its_bundle_whatever_the_log_says() -> None:
    """The files count, even where the log tells of no service in that time."""
    ledger = two_versions()
    give(ledger, Retire(1), NOON + timedelta(days=2))
    found = verdicts(ledger, stored("1"), {digest("1"): 1_234}, days=5_000)["1"]
    assert (found.stays, found.why) == (True, "1,234 kept answers refer to it")


def test_a_version_that_never_served_goes_once_it_is_withdrawn() -> None:
    """Nobody was ever answered by it."""
    ledger = two_versions()
    give(ledger, release("3"), NOON + timedelta(days=2))
    assert verdicts(ledger, stored("3"), days=5_000)["3"].stays
    give(ledger, Revoke(3), NOON + timedelta(days=3))
    assert not verdicts(ledger, stored("3"), days=4)["3"].stays


def test_a_shadow_and_a_candidate_serve() -> None:
    """What they said is kept beside the answers, from the start of the rollout to its end."""
    for strategy in (Strategy.SHADOW, Strategy.CANARY):
        ledger = two_versions()
        give(ledger, release("3"), NOON + timedelta(days=2))
        begun = give(ledger, Start(3, strategy, "salt"), NOON + timedelta(days=3))
        assert verdicts(ledger, stored("3"), days=5_000)["3"].why == "sales:3 serves"
        give(ledger, Abort(begun.events[0].event.revision), NOON + timedelta(days=10))
        give(ledger, Revoke(3), NOON + timedelta(days=20))
        assert verdicts(ledger, stored("3"), days=374)["3"].stays
        assert not verdicts(ledger, stored("3"), days=376)["3"].stays


def test_a_bundle_that_two_models_released_stays_for_either() -> None:
    """One store serves many models."""
    gone = two_versions()
    give(gone, Retire(1), NOON + timedelta(days=2))
    uses = uses_of("sales", gone.events)[digest("1")]
    assert not judge_one(uses).stays
    units = Use("units:1", Standing.RELEASED, True, None)
    assert judge_one([*uses, units]).why == "units:1 serves"


def judge_one(uses: list[Use]) -> Verdict:
    """The verdict on one old bundle, long after."""
    [only] = judge(
        stored("1"),
        {digest("1"): uses},
        {},
        now=NOON + timedelta(days=5_000),
        retention=YEAR,
        grace=MONTH,
    )
    return only


def test_a_new_bundle_has_time_to_be_released() -> None:
    """And goes when nobody did."""
    fresh = [Stored(digest("9"), "sales", NOON)]
    assert verdicts(two_versions(), fresh, days=29)["9"].stays
    late = verdicts(two_versions(), fresh, days=31)["9"]
    assert (late.stays, late.why) == (False, "no model of this cluster ever released it")


def test_the_ancestors_of_what_stays_stay() -> None:
    """A refresh names its parent, and that one its own."""
    chain = [*stored("2", parent=digest("8")), *stored("8", parent=digest("7")), *stored("7")]
    found = verdicts(two_versions(), chain, days=5_000)
    assert found["8"].why == f"{'2' * 12} was refreshed from it"
    assert found["7"].why == f"{'8' * 12} was refreshed from it"
    assert not verdicts(two_versions(), chain[1:], days=5_000)["7"].stays
