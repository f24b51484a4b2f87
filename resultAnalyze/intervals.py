"""What was measured, unit by unit, and how sure a difference between two such measurements is."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap
from torch import Tensor

RESAMPLES = 2000


@dataclass(frozen=True)
class Measured:
    """A metric as a ratio of sums over the units that the bootstrap draws: movies or users."""

    total: np.ndarray  # [units]
    weight: np.ndarray  # [units]
    root: bool = False  # the metric is the root of the ratio

    def value(self) -> float:
        ratio = self.total.sum() / self.weight.sum()
        return float(ratio**0.5 if self.root else ratio)


def by_user(values: np.ndarray | Tensor) -> Measured:
    """A metric that is a mean over users."""
    return Measured(np.asarray(values), np.ones(len(values)))


def difference(one: Measured, other: Measured) -> tuple[float, float, float]:
    """one - other, and its 95 % interval by percentile bootstrap of the units, the same ones for both."""

    def statistic(a: np.ndarray, b: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
        a, b = (total.sum(axis) / weight.sum(axis) for total in (a, b))
        return a**0.5 - b**0.5 if one.root else a - b

    drawn = bootstrap(
        (one.total, other.total, one.weight),
        statistic,
        paired=True,
        n_resamples=RESAMPLES,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return one.value() - other.value(), *map(float, drawn.confidence_interval)
