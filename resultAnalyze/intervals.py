"""Metrics unit by unit, and how sure they and their differences are: over tested users or movies, and over trainings.

A difference between two models, each trained with several seeds, has two sources of chance: which units (users or
movies) are tested, the same ones for both, and the trainings. With y the metric of model, seed and unit, the difference
of the means over seeds and units has the variance of a two-way layout with random effects (Searle, Casella and
McCulloch 1992, "Variance Components", chapter 4):

    var = units + sum over the models of (seeds - both)

units: variance of the units' differences, averaged over the seeds, by their number; seeds: variance of the seeds' means
by their number; both: of what is left of y without its unit's and its seed's mean, by the number of units times seeds,
which the two others both count. The interval is Student's, with the degrees of freedom of Satterthwaite 1946, "An
Approximate Distribution of Estimates of Variance Components": those of three seeds are few, so it is wide.
resultAnalyze/null_experiment.py measures how often it excludes 0 where nothing differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import t
from torch import Tensor

CONFIDENCE = 0.95


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
    """An estimate, its 95 % interval, and the probability of one as far from 0 if the truth is 0."""

    value: float
    low: float
    high: float
    p: float


def mean_over_users(values: np.ndarray | Tensor) -> UnitMetric:
    """A metric that is a mean over users."""
    return UnitMetric(np.asarray(values, np.float64), np.ones(len(values)))


def interval(metric: UnitMetric) -> Estimate:
    """A metric of one training with its interval over units: the chance in the training is not in it."""
    y = shares([metric]).mean(0)
    return student(metric.value(), sum_variance(y), [Part(sum_variance(y), len(y) - 1)])


def difference(one: Sequence[UnitMetric], other: Sequence[UnitMetric], over_seeds: bool = True) -> Estimate:
    """The mean of some trainings less that of others, on the same units.

    Args:
        over_seeds: the interval covers the trainings as well, of a model with several; else the units alone
    """
    models = [shares(trainings) for trainings in (one, other)]
    units = sum_variance(models[0].mean(0) - models[1].mean(0))
    seeds, both = [], 0.0
    for y in models:
        n_seeds, n_units = y.shape
        if over_seeds and n_seeds > 1:
            seeds.append(Part(y.sum(1).var(ddof=1) / n_seeds, n_seeds - 1))
            rest = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
            both += n_units * (rest**2).sum() / ((n_units - 1) * (n_seeds - 1)) / n_seeds
    parts = [Part(units, models[0].shape[1] - 1), *seeds]
    of_seeds = sum(part.variance for part in seeds)
    value = np.mean([training.value() for training in one]) - np.mean([training.value() for training in other])
    return student(float(value), max(units + of_seeds - both, units, of_seeds), parts)


class Part(NamedTuple):
    """A part of a variance, and the degrees of freedom of its estimate."""

    variance: float
    freedom: int


def shares(trainings: Sequence[UnitMetric]) -> np.ndarray:
    """What each unit adds to the metric of each training, less the same for all trainings: [seeds, units].

    Of a ratio and its root to first order, around the mean of the trainings (delta method).
    """
    total, weight = np.stack([one.total for one in trainings]), trainings[0].weight
    ratio = total.mean(0).sum() / weight.sum()
    slope = 1 / (2 * max(ratio, 1e-12) ** 0.5) if trainings[0].root else 1.0
    return slope * (total - ratio * weight) / weight.sum()


def sum_variance(y: np.ndarray) -> float:
    """The variance of a sum over as many units as these, drawn from those that these were drawn from."""
    return float(len(y) * y.var(ddof=1))


def student(value: float, variance: float, parts: Sequence[Part]) -> Estimate:
    """Student's interval around a value with this variance, which was estimated from parts."""
    if variance <= 0:  # nothing is left to chance
        return Estimate(value, value, value, float(value == 0))
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)
    error = variance**0.5
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Estimate(value, value - half, value + half, float(2 * t.sf(abs(value) / error, freedom)))
