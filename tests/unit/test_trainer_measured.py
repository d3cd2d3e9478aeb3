"""A card says on which days importance was measured and quantiles were learned, and if they are few."""

import pytest

from schemas.evidence import Examined, Importance, Quantile
from trainer.measured import calibration_in_words, importance_in_words

SHUFFLED = Importance(
    rows=1_200,
    repeats=3,
    rmsle=0.41234,
    fields=(),
    groups=(),
    first="2024-03-25",
    last="2024-04-07",
)


def examined(*origins: str, judged: bool = True) -> Examined:
    """Days whose quantiles were learned after these origins."""
    return Examined(
        origin="2024-04-07",
        first="2024-04-08",
        last="2024-04-21",
        rows=10,
        closed_rows=0,
        scores={},
        steps=(),
        slices=(),
        calibration=(Quantile(0.1, 0.1, 0.1),) if judged else (),
        calibrated_on=origins,
    )


def test_importance_says_its_days_and_its_model() -> None:
    """That of a fold is not of the model that is released."""
    said = importance_in_words(SHUFFLED)
    assert "(0.4123 on 1,200 rows)" in said
    assert "2024-03-25 … 2024-04-07, held out." in said
    fold = Importance(
        1_200, 3, 0.4, (), (), on="newest fold", first="2024-03-25", last="2024-04-07"
    )
    assert "of the backtest's newest fold, with the model as it was trained for" in (
        importance_in_words(fold)
    )


@pytest.mark.parametrize(
    ("horizon", "origins", "few"),
    [
        (14, ["2024-03-24"], ""),
        (4, ["2024-04-03"], ""),
        (3, ["2024-04-04", "2024-04-01"], ""),
        (3, ["2024-04-04"], "3 in all"),
        (1, ["2024-04-06", "2024-04-05", "2024-04-04"], "3 in all"),
        (1, ["2024-04-06", "2024-04-05", "2024-04-04", "2024-04-03"], ""),
    ],
)
def test_few_days_of_calibration_are_said_to_be_few(
    horizon: int, origins: list[str], few: str
) -> None:
    """Fewer than four days together are few; all origins are named."""
    said = calibration_in_words(examined(*origins), horizon)
    assert f"on the days after {', '.join(origins)}" in said
    assert (f"{few}, since the history gives no more" in said) == bool(few)
    assert ("say little" in said) == bool(few)


def test_quantiles_without_a_fold_are_explained() -> None:
    """Those of a refresh are its parent's; an oldest fold has none."""
    assert "the published ones" in calibration_in_words(examined(), 14)
    assert "none were judged" in calibration_in_words(examined(judged=False), 14)
