"""The report of a comparison: a table of all models, their gaps to the best one, and a figure with intervals."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from Models.configs import PRESETS
from Models.evaluation.rankings import RankingEvaluator
from resultAnalyze.baselines import BASELINES, is_seeded
from resultAnalyze.intervals import CONFIDENCE, MIN_SEEDS, Estimate, UnitMetric, difference, estimate, mean
from resultAnalyze.markdown import markdown_table, mean_and_range
from utils.files import atomic_write

UNITS = "units"  # the folder of metrics by user and by movie


def save_units(path: Path, units: dict[str, UnitMetric]) -> None:
    """Write the metrics of one training by unit."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{name: np.stack([one.total, one.weight]).astype(np.float32) for name, one in units.items()})


@dataclass(frozen=True)
class Comparison:
    """The measured models.

    done: comparison.csv
    missing: why models could not be measured
    folder: where `save_units` wrote
    """

    evaluator: RankingEvaluator
    done: pd.DataFrame
    missing: dict[str, str]
    folder: Path

    @cached_property
    def units(self) -> dict[str, dict[str, list[UnitMetric]]]:
        """Metric -> model -> its training runs."""
        found: dict[str, dict[str, list[UnitMetric]]] = {}
        for model, seed in self.done[["model", "seed"]].itertuples(index=False):
            with np.load(self.folder / f"{model}-{seed}.npz") as saved:
                for metric in saved.files:
                    total, weight = saved[metric].astype(np.float64)
                    trainings = found.setdefault(metric, {}).setdefault(model, [])
                    trainings.append(UnitMetric(total, weight, root=metric == "rmse"))
        return found

    def markdown(self) -> str:
        """Means over the seeds +- half their range, and how far each model is behind the best one."""
        k, data, done = self.evaluator.k, self.evaluator.data, self.done
        columns = ["rmse", "mae", f"hr@{k}", f"ndcg@{k}", f"recall@{k}", "coverage", "overlap", "novelty"]
        columns += [name for name in ("cold_rmse", "cold_auc", f"cold_ndcg@{k}") if done[name].notna().any()]
        rows = []
        for name in (*BASELINES, *PRESETS):
            mine = done[done["model"] == name]
            if len(mine):
                cells = {column: mean_and_range(mine[column]) for column in columns}
                costs = {"seconds": f"{mine['seconds'].mean():.1f}"}
                costs |= {"GiB": f"{mine['memory'].max():.1f}"} if mine["memory"].notna().any() else {}
                rows.append({"model": name, "seeds": len(mine)} | cells | costs)
        rows += [{"model": name, "rmse": why} for name, why in self.missing.items()]
        return (
            f"{data.name}: {self.evaluator.split.protocol}; relevant: test ratings of "
            f"{self.evaluator.relevance_threshold:g} or higher; whole catalogue of {len(data.movies):,} movies ranked, "
            f"known ones out, ties against the model; +-: half the range between seeds.\n\n"
            f"{markdown_table(pd.DataFrame(rows))}{self.behind_table()}{tuned_settings(done)}"
        )

    def behind(self, metric: str) -> tuple[str, dict[str, Estimate]]:
        """The best model, and how much worse each of the others is.

        For models about which a claim can be made, the interval allows for choosing the best of all of them; for
        others it is over users or movies alone.
        """
        trainings, is_error = self.units[metric], metric.endswith("rmse")
        best = max(trainings, key=lambda name: mean(trainings[name]) * (-1 if is_error else 1))
        n_eligible, found = sum(map(self.is_eligible, trainings)), {}
        for name in trainings:
            if name != best:
                pair = [trainings[best], trainings[name]][:: -1 if is_error else 1]
                eligible = self.is_eligible(name) and self.is_eligible(best)
                found[name] = difference(*pair, over_seeds=eligible, among=n_eligible if eligible else 2)
        return best, found

    def is_eligible(self, name: str) -> bool:
        """Whether a claim can be made about a model: it has enough seeds, or draws no random numbers."""
        return not is_seeded(name) or (self.done["model"] == name).sum() >= MIN_SEEDS

    def behind_table(self) -> str:
        """For each metric, the models sorted by their gap to the best one."""
        rows = []
        for metric in self.units:
            best, found = self.behind(metric)
            for name, one in sorted(found.items(), key=lambda pair: pair[1].value):
                row = {"metric": metric.upper().replace("_", " "), "best": best, "model": name}
                row["behind by [95 % interval]"] = f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"
                rows.append(row | {"": self.verdict(best, name, one)})
        if not rows:
            return ""
        return (
            "\nGap to the best model, with 95 % intervals over seeds and users (NDCG) or movies (RMSE, for these "
            "users), widened as the best was picked from all (Tukey's studentised range): if all models were equal, "
            "some model would be called worse in at most one comparison of twenty.\n\n"
            f"{markdown_table(pd.DataFrame(rows))}"
        )

    def verdict(self, best: str, name: str, one: Estimate) -> str:
        if not (self.is_eligible(best) and self.is_eligible(name)):
            return f"fewer than {MIN_SEEDS} seeds, no claim"
        if np.isnan(one.p):
            return "too few tested to say"
        return "behind" if one.p <= 1 - CONFIDENCE else "no difference is shown"

    def draw(self, target: Path, title: str) -> None:
        """Each metric of each model, the best on top, with its interval over training runs and users or movies.

        Presets of this project and baselines have different markers.
        """
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt

        metrics = list(self.units)
        height = 0.3 * self.done["model"].nunique() + 1.6
        figure, axes = plt.subplots(
            1, len(metrics), figsize=(6 * len(metrics), height), layout="constrained", squeeze=False
        )
        for axis, metric in zip(axes[0], metrics, strict=True):
            is_error = metric.endswith("rmse")
            found = {name: estimate(trainings) for name, trainings in self.units[metric].items()}
            ordered = sorted(found, key=lambda name, found=found: found[name].value, reverse=is_error)
            axis.set_yticks(range(len(ordered)), ordered)
            for kind, marker, is_preset in (("preset", "s", True), ("baseline", "o", False)):
                rows = [row for row, name in enumerate(ordered) if (name in PRESETS) == is_preset]
                if rows:
                    value, low, high, _ = np.array([found[ordered[row]] for row in rows]).T
                    axis.errorbar(value, rows, xerr=[value - low, high - value], fmt=marker, capsize=3, label=kind)
            axis.set_title(f"{metric.upper().replace('_', ' ')} ({'lower' if is_error else 'higher'} is better)")
            axis.grid(alpha=0.3)
            axis.legend()
        figure.suptitle(f"{title}, 95 % intervals")
        with atomic_write(target) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
        plt.close(figure)


def tuned_settings(done: pd.DataFrame) -> str:
    """A line with the settings of each model that was tuned."""
    lines = []
    for name, text, n in done.drop_duplicates("model")[["model", "settings", "trials"]].itertuples(index=False):
        chosen = ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in json.loads(text).items()
        )
        lines += [f"- {name}, {n:.0f} trials: {chosen}\n"] * bool(chosen)
    return "\nSettings of the best trials:\n\n" + "".join(lines) if lines else ""
