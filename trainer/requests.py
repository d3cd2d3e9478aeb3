"""Requests and forecasts as columns: what goes into a forecaster and its graph, and what comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trainer.keys import Float32s, Floats, Ints


@dataclass(frozen=True)
class Requests:
    """N raw requests: ``[N]`` values of each key, ``[N]`` days since 1970-01-01, and ``[N]`` of each
    covariate as float32, NaN where it is null or absent."""

    columns: Mapping[str, Sequence[str | int]]
    days: Ints
    covariates: Mapping[str, Float32s] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.days)

    def take(self, rows: npt.NDArray[np.int64]) -> "Requests":
        """Some of them, in this order."""
        return Requests(
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
            days=self.days[rows],
            covariates={name: values[rows] for name, values in self.covariates.items()},
        )


@dataclass(frozen=True)
class Forecasts:
    """Answers to N requests: the first three in units, the other two 1 for yes and 0 for no."""

    sales: Floats
    sales_p10: Floats
    sales_p90: Floats
    known_series: Ints
    in_horizon: Ints

    def take(self, rows: Ints) -> "Forecasts":
        """Some of them, in this order."""
        return Forecasts(
            sales=self.sales[rows],
            sales_p10=self.sales_p10[rows],
            sales_p90=self.sales_p90[rows],
            known_series=self.known_series[rows],
            in_horizon=self.in_horizon[rows],
        )
