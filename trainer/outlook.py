"""The outlook: what is known of the days ahead without the sales of any series.

1. Where the panel has traffic for long enough, its forecast excess (``trainer.traffic``): it carries
   paydays, holidays and the season of each store.
2. Where the panel itself has a year or more, the calendar of the days ahead (``trainer.calendar``) and
   local holidays. With only months of sales raw calendar columns overfit (measured), and are left out.
"""

from dataclasses import dataclass

import numpy as np

from trainer.calendar import COLUMNS, calendar, local_holidays
from trainer.history import STEP, Lookup, key_axis, on_grid
from trainer.panel import Panel
from trainer.traffic import TrafficForecaster, fit_traffic

YEAR = 365


@dataclass(frozen=True)
class Outlook:
    """What each origin of a panel knows of its days ahead."""

    panel: Panel
    until: int
    traffic: TrafficForecaster | None
    with_calendar: bool

    def lookups(self, origin_day: int) -> tuple[Lookup, ...]:
        """The columns as of an origin, a day since 1970-01-01."""
        found = []
        keys = self.panel.keys
        if self.traffic is not None:
            source = self.traffic.traffic
            excess = self.traffic.excess(origin_day)
            table = np.concatenate([excess, excess.mean(axis=0, keepdims=True)])
            name = f"traffic:{source.name}"
            found.append(
                Lookup((key_axis(source.key), STEP), (name,), on_grid(table).reshape(-1, 1))
            )
        if self.with_calendar:
            days = origin_day + 1 + np.arange(self.panel.horizon)
            values = calendar(days, self.panel.holidays)
            found.append(Lookup((STEP,), COLUMNS, on_grid(values)))
            for key in keys.names:
                local = local_holidays(key, days, self.panel.holidays)
                if local is not None:
                    table = on_grid(np.concatenate([local, np.zeros((1, len(days)))]))
                    found.append(
                        Lookup((key_axis(key), STEP), (f"key:{key}:holiday",), table.reshape(-1, 1))
                    )
        return tuple(found)


def fit_outlook(panel: Panel, until: int, seed: int) -> Outlook:
    """The outlook for origins from the day ``until`` (since 1970-01-01) on: traffic teaches up to it."""
    return Outlook(
        panel=panel,
        until=until,
        traffic=fit_traffic(panel, until, seed),
        with_calendar=panel.cutoff + 1 >= YEAR,
    )
