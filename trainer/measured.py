"""What was measured on which days, in the words of a card."""

from schemas.evidence import Examined, Importance
from trainer.training import LEAST_FOLD_TEST


def importance_in_words(found: Importance) -> str:
    """What a rise is of, on which days, and on which model."""
    where = "held out"
    if found.on == "newest fold":
        where = "of the backtest's newest fold, with the model as it was trained for that fold"
    return (
        f"Rise of the RMSLE ({found.rmsle:.4f} on {found.rows:,} rows) where one is shuffled, on the "
        f"days {found.first} … {found.last}, {where}."
    )


def calibration_in_words(examined: Examined, horizon: int) -> str:
    """Which days the quantiles were learned on, and that they are few, where they are."""
    origins = examined.calibrated_on
    if not origins:
        if not examined.calibration:
            return "No older fold gives quantiles for these days, so none were judged."
        return "The quantiles are the published ones: this bundle has no fold to learn others from."
    days = horizon * len(origins)
    told = f"The quantiles were learned on the days after {', '.join(origins)}"
    if days < LEAST_FOLD_TEST:
        told += f": {days} in all, since the history gives no more, so they say little"
    return f"{told}."
