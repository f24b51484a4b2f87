"""Metrics unit by unit, and how sure a difference between two models is."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap
from torch import Tensor

RESAMPLES = 2000


@dataclass(frozen=True)
class UnitMetric:
    """A metric as a ratio of sums over the units that the bootstrap draws: movies or users."""

    total: np.ndarray  # [units]
    weight: np.ndarray  # [units]
    root: bool = False  # the metric is the root of the ratio

    def value(self) -> float:
        ratio = self.total.sum() / self.weight.sum()
        return float(ratio**0.5 if self.root else ratio)


def mean_over_users(values: np.ndarray | Tensor) -> UnitMetric:
    """A metric that is a mean over users."""
    return UnitMetric(np.asarray(values), np.ones(len(values)))


def mean_over_seeds(metrics: list[UnitMetric]) -> UnitMetric:
    """The mean of several trainings, unit by unit: all are measured on the same units."""
    return UnitMetric(np.mean([one.total for one in metrics], axis=0), metrics[0].weight, metrics[0].root)


def interval(metric: UnitMetric) -> tuple[float, float]:
    """The 95 % interval of a metric by percentile bootstrap of the units."""

    def statistic(total: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
        ratio = total.sum(axis) / weight.sum(axis)
        return ratio**0.5 if metric.root else ratio

    columns, random = (metric.total, metric.weight), np.random.default_rng(0)
    drawn = bootstrap(
        columns, statistic, paired=True, n_resamples=RESAMPLES, batch=100, method="percentile", rng=random
    )
    return tuple(map(float, drawn.confidence_interval))


def paired_bootstrap(one: UnitMetric, other: UnitMetric) -> tuple[float, float, float]:
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
