"""What each input of an ablation changes: differences between its runs with intervals, as a table and a figure."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from resultAnalyze.intervals import FALSE_CLAIMS, MIN_SEEDS, MIN_UNITS, Estimate, UnitMetric, difference
from resultAnalyze.markdown import effect_in_words
from utils.files import atomic_write

SHARE = "top-N share"  # a metric that is neither good nor bad
Contrast = tuple[str, str, str]  # what changes between two variants, the variant with it and the one without
Results = dict[tuple[str, int, str], dict[str, UnitMetric]]  # (variant, seed, group) -> metrics by name


@dataclass(frozen=True)
class Effect:
    """What an input changes."""

    what: str
    group: str
    metric: str
    change: Estimate
    seeds: int  # the fewest of the two variants
    q: float  # the lowest false discovery rate, over all differences of the table, at which this one is claimed

    def verdict(self) -> str:
        """Whether an effect is claimed."""
        if self.seeds < MIN_SEEDS:
            return f"fewer than {MIN_SEEDS} seeds, no claim"
        better = (self.change.value < 0) == (self.metric == "rmse")
        return ("better" if better else "worse") if self.q <= FALSE_CLAIMS else "no effect is shown"

    def in_words(self) -> str:
        interval = effect_in_words(self.change.value, self.change.low, self.change.high, 4)
        what = self.what[0].upper() + self.what[1:]
        return f"{what}: {self.group}-movie {self.metric.upper()} {interval}, {self.verdict()}."


def all_effects(results: Results, contrasts: Iterable[Contrast]) -> list[Effect]:
    """Every contrast by every metric that both variants have, except `SHARE` and those over too few units."""
    found = []
    for what, *pair in contrasts:
        for group, metric in shared_metrics(results, pair):
            trainings = [metrics_of(results, variant, group, metric) for variant in pair]
            if metric != SHARE and len(trainings[0][0].weight) >= MIN_UNITS:
                found.append((what, group, metric, difference(*trainings), min(map(len, trainings))))
    rates = false_discovery_control(np.nan_to_num([change.p for *_, change, _ in found], nan=1.0)) if found else []
    return [Effect(*one, q=float(rate)) for one, rate in zip(found, rates, strict=True)]


def metrics_of(results: Results, variant: str, group: str, metric: str) -> list[UnitMetric]:
    """A metric of each training of a variant."""
    return [one[metric] for (name, _, where), one in results.items() if (name, where) == (variant, group)]


def shared_metrics(results: Results, variants: Iterable[str]) -> list[tuple[str, str]]:
    """The groups and metrics by which all these variants were measured."""
    measured = [
        dict.fromkeys((group, metric) for (name, _, group), found in results.items() if name == v for metric in found)
        for v in variants
    ]
    return [pair for pair in measured[0] if all(pair in others for others in measured)]


def effect_table(effects: list[Effect]) -> pd.DataFrame:
    """One row per difference: what was added, which movies and metric, the change, its interval and the verdict."""
    rows = []
    for effect in effects:
        change = {name: round(value, 5) for name, value in zip(("change", "low", "high"), effect.change, strict=False)}
        row = {"what": effect.what, "movies": effect.group, "metric": effect.metric} | change
        rows.append(row | {"seeds": effect.seeds, "q": float(f"{effect.q:.2g}"), "verdict": effect.verdict()})
    columns = ("what", "movies", "metric", "change", "low", "high", "seeds", "q", "verdict")
    return pd.DataFrame(rows, columns=columns)


def draw(effects: list[Effect], target: Path, title: str) -> None:
    """Differences with their intervals, one panel per metric, one colour per group; without any, an empty figure."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names, groups, metrics = (
        list(dict.fromkeys(getattr(effect, field) for effect in effects)) for field in ("what", "group", "metric")
    )
    height = 0.55 * len(names) + 2
    size = (3.6 * len(metrics) + 2.5, height)
    figure, axes = plt.subplots(1, max(1, len(metrics)), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for effect in effects:
        axis, group = axes[0, metrics.index(effect.metric)], groups.index(effect.group)
        y = names.index(effect.what) + 0.22 * group
        value, low, high, _ = effect.change
        error = [[value - low], [high - value]]
        axis.errorbar(value, y, xerr=error, fmt="o", markersize=4, capsize=3, color=f"C{group}")
    for axis, metric in zip(axes[0], metrics, strict=False):
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{metric.upper()}\n({'left' if metric == 'rmse' else 'right'} is better)")
        axis.grid(axis="x", alpha=0.3)
        axis.locator_params(axis="x", nbins=5)
    axes[0, 0].set_yticks(np.arange(len(names)) + 0.22, names)
    axes[0, 0].invert_yaxis()
    handles = [plt.Line2D([], [], color=f"C{k}", marker="o", label=group) for k, group in enumerate(groups)]
    figure.legend(handles=handles, title="movies", loc="outside right upper")
    figure.suptitle(f"What each input changes: {title}, 95 % intervals")
    with atomic_write(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
