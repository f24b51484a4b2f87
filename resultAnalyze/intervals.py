"""Metrics by unit (tested user or movie), and intervals of their means and differences over units and over seeds.

A difference between two models, each trained with several seeds, has two sources of chance: which units (users or
movies) are tested, the same ones for both, and the seeds. With y the metric of model, seed and unit, the difference of
the means over seeds and units has the variance of a two-way layout with random effects (Searle, Casella and
McCulloch 1992, "Variance Components", chapter 4):

    var = units + sum over the models of (seeds - both)

units: the variance of the units' differences, averaged over the seeds, divided by their number; seeds: the variance of
the seeds' means, divided by their number; both: the variance of what remains of y without its unit's and its seed's
mean, divided by the number of units times seeds, which is counted in each of the other two. The interval is Student's,
with the degrees of freedom of Satterthwaite 1946, "An Approximate Distribution of Estimates of Variance Components":
three seeds give few, so it is wide. resultAnalyze/null_experiment.py measures how often it excludes 0 when nothing
differs.

The best of several models, or the widest of several gaps, was chosen by the metrics themselves. The interval then
depends on the number of means it was chosen `among`, by the studentised range (Tukey 1953, "The Problem of Multiple
Comparisons"): if nothing differs, the probability that any of these differences excludes 0 is at most one in twenty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import studentized_range, t
from torch import Tensor

CONFIDENCE = 0.95
MIN_SEEDS = 3  # for a claim
MIN_UNITS = 20  # users or movies, for an interval
FALSE_CLAIMS = 0.05  # the expected share of all claims, at most


@dataclass(frozen=True)
class UnitMetric:
    """A metric of one training as a ratio of sums over units: movies or users."""

    total: np.ndarray  # [units]
    weight: np.ndarray  # [units]
    root: bool = False  # the metric is the root of the ratio

    def value(self) -> float:
        ratio = self.total.sum() / self.weight.sum()
        return float(ratio**0.5 if self.root else ratio)


class Estimate(NamedTuple):
    """An estimate, its 95 % interval, and the probability of one at least as far from 0 if the true value is 0."""

    value: float
    low: float
    high: float
    p: float


def mean_over_users(values: np.ndarray | Tensor) -> UnitMetric:
    """A metric that is a mean over users."""
    return UnitMetric(np.asarray(values, np.float64), np.ones(len(values)))


class Part(NamedTuple):
    """A part of a variance, and the degrees of freedom of its estimate."""

    variance: float
    freedom: int


def squared_by_unit(error: np.ndarray, unit: np.ndarray, n: int = 0) -> UnitMetric:
    """The RMSE of rows by `unit`, the index of each row's user or movie; units without rows have no weight.

    n: the minimum number of units
    """
    count = np.bincount(unit, minlength=n)
    return UnitMetric(np.bincount(unit, error.astype(np.float64) ** 2, len(count)), count.astype(float), root=True)


def rated_units(metric: UnitMetric, among: np.ndarray | bool = True) -> UnitMetric:
    """The units of `among`, bool [units], that have a weight."""
    kept = (metric.weight > 0) & among
    return UnitMetric(metric.total[kept], metric.weight[kept], metric.root)


def estimate(trainings: Sequence[UnitMetric]) -> Estimate:
    """The mean of a metric over training runs, with its interval over units and seeds; of one training, over units."""
    y = shares(trainings)
    return combined(mean(trainings), [units_part(y.mean(0))], [seeds_part(y.sum(1))], both(y))


def difference(
    one: Sequence[UnitMetric], other: Sequence[UnitMetric], over_seeds: bool = True, among: int = 2
) -> Estimate:
    """The mean of some training runs minus that of others, on the same units.

    Args:
        over_seeds: the interval also covers the seeds of a model with several training runs; otherwise units alone
        among: the number of models from which the best, or the pair furthest apart, was chosen
    """
    y, z = shares(one), shares(other)
    seeds, shared = ([seeds_part(y.sum(1)), seeds_part(z.sum(1))], both(y) + both(z)) if over_seeds else ([], 0.0)
    return combined(mean(one) - mean(other), [units_part(y.mean(0) - z.mean(0))], seeds, shared, among)


def gap(one: Sequence[UnitMetric], other: Sequence[UnitMetric], among: int = 2) -> Estimate:
    """The metric of some units minus that of other units, in the same training runs; `among`: as in `difference`."""
    y, z = shares(one), shares(other)
    units = [units_part(y.mean(0)), units_part(z.mean(0))]
    return combined(mean(one) - mean(other), units, [seeds_part(y.sum(1) - z.sum(1))], both(y) + both(z), among)


def mean(trainings: Sequence[UnitMetric]) -> float:
    return float(np.mean([one.value() for one in trainings]))


def shares(trainings: Sequence[UnitMetric]) -> np.ndarray:
    """What each unit adds to each training's deviation from the mean metric of the training runs: [seeds, units].

    Ratios and their roots are taken to first order around that mean (delta method).
    """
    total, weight = np.stack([one.total for one in trainings]), trainings[0].weight
    ratio = total.mean(0).sum() / weight.sum()
    slope = 1 / (2 * max(ratio, 1e-12) ** 0.5) if trainings[0].root else 1.0
    return slope * (total - ratio * weight) / weight.sum()


def units_part(y: np.ndarray) -> Part:
    """The part of a sum over this many units, drawn from the same population."""
    return Part(float(len(y) * y.var(ddof=1)) if len(y) > 1 else np.nan, len(y) - 1)


def seeds_part(of_seed: np.ndarray) -> Part | None:
    """The part of a mean over this many seeds; None for a single one, which says nothing about others."""
    n = len(of_seed)
    return Part(float(of_seed.var(ddof=1) / n), n - 1) if n > 1 else None


def both(y: np.ndarray) -> float:
    """What the units' part and the seeds' part both count: the variance of pairs of seed and unit; y [seeds, units]."""
    n_seeds, n_units = y.shape
    if 1 in (n_seeds, n_units):
        return 0.0
    rest = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    return float(n_units * (rest**2).sum() / ((n_units - 1) * (n_seeds - 1)) / n_seeds)


def combined(
    value: float, units: Sequence[Part], seeds: Sequence[Part | None], shared: float, among: int = 2
) -> Estimate:
    """The interval around a value with these parts of variance; `shared` is counted twice in them.

    With fewer than two units, nothing is known about others, and the interval is NaN.
    """
    seeds = [part for part in seeds if part is not None]
    of_units, of_seeds = (sum(part.variance for part in parts) for parts in (units, seeds))
    variance = max(of_units + of_seeds - shared, of_units, of_seeds)
    if not np.isfinite([value, of_units, of_seeds]).all():
        return Estimate(value, np.nan, np.nan, np.nan)
    if variance <= 0:  # nothing is left to chance
        return Estimate(value, value, value, float(value == 0))
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in (*units, *seeds))
    error = variance**0.5
    if among == 2:
        half, p = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error, float(2 * t.sf(abs(value) / error, freedom))
    else:  # for two means, the studentised range is Student's t times the root of 2
        half = float(studentized_range.ppf(CONFIDENCE, among, freedom)) * error / 2**0.5
        p = float(studentized_range.sf(abs(value) / error * 2**0.5, among, freedom))
    return Estimate(value, value - half, value + half, p)
