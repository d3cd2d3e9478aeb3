"""A small made-up panel for the tests of evidence: shops by products, promotions, a new series."""

import numpy as np

from trainer.keys import Keys
from trainer.panel import Attribute, Covariate, CovariateKind, Panel

FIRST_DAY = 19_723  # 2024-01-01, a Monday
DAYS, HORIZON = 112, 14

HOSTILE = '<script>alert("1")</script>&$x_{2}$'
"""A key value that wants to be markup."""


def made_up_panel(days: int = DAYS, seed: int = 5) -> Panel:
    """4 shops by 6 products over 16 weeks, of which the last two are held out.

    Sales have levels, weekdays and promotions; the first series was first sold 10 days before the
    cutoff.
    """
    generator = np.random.default_rng(seed)
    cutoff = days - HORIZON - 1
    shop, product = (axis.ravel() for axis in np.mgrid[0:4, 0:6])
    promotion = (generator.random((24, days)) < 0.15).astype(np.float32)
    week = 1 + 0.6 * np.sin(2 * np.pi * np.arange(days) / 7)
    mean = 2.0 * (1 + shop)[:, None] * (1 + product % 3)[:, None] * week * (1 + promotion)
    units = generator.poisson(mean).astype(np.float32)
    units[0, : cutoff - 9] = 0
    keys = Keys(
        ("shop", "product"),
        ((11, 12, 13, 14), (HOSTILE, "p1", "p2", "p3", "p4", "p5")),
        np.stack([shop, product]),
    )
    other = np.full(units.shape, np.nan, dtype=np.float32)
    other[:, cutoff + 1 :] = units[:, cutoff + 1 :] + 1
    return Panel(
        keys=keys,
        units=units,
        first_day=FIRST_DAY,
        cutoff=cutoff,
        horizon=HORIZON,
        unit_share=1.0,
        covariates=(
            Covariate("promotion", CovariateKind.FLAG, "1 where it is promoted", promotion),
        ),
        attributes=(Attribute("type", "shop", ("big", "small"), np.array([1, 1, 0, -1])),),
        weights=np.where(product == 1, 1.25, 1.0),
        references={"other": other},
        notes=("2 rows were summed",),
    )
