#!/usr/bin/env python3
"""Who is served badly? The metrics of a run by groups of users and movies, and the widest gap between two groups.

    python resultAnalyze/groups.py
    python resultAnalyze/groups.py --runs runs/a runs/b runs/c      # the same training with several seeds

Users are grouped by their number of known ratings, and by gender and age where the data has them; movies by their
number of known ratings and by the decade of their release. Rankings are measured by the NDCG@10 of users and, for
movies, by the share of relevant test ratings whose movie is in the user's top ten; predictions by their RMSE. Means
over the runs have 95 % intervals over seeds and users or movies (intervals.py). Groups of fewer than 20 users or movies
are left out. The interval of the widest gap allows for choosing it among all groups. A gap does not show a cause: users
with many ratings also have more movies to be found.

Writes groups.csv and groups.png into --output or, by default, the first run's folder, from where utils/hub.py takes the
widest gaps for the model card.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd

from resultAnalyze.intervals import MIN_UNITS, UnitMetric, estimate, gap, rated_units, squared_by_unit
from resultAnalyze.markdown import markdown_table
from resultAnalyze.run_files import (
    Run,
    counts_outside_test,
    equal_parts,
    relevant_rows,
    results_table,
    user_metrics,
)
from utils import cli
from utils.cli import display_path
from utils.config import OptionalFolder, parse
from utils.files import UserError, atomic_write, write_table
from utils.runs import GROUPS, finished_run

PARTS = 5  # groups of about equal size, by numbers of ratings
Groups = dict[str, dict[str, np.ndarray]]  # grouping -> name of the group -> bool for each user or movie


@dataclass(frozen=True)
class Settings:
    runs: tuple[Path, ...] = ()
    """folders of finished training runs that differ only in their seed (default: the newest in runs/)"""
    output: OptionalFolder = None
    """folder (default: that of the first run)"""


def main() -> None:
    settings = parse(Settings, __doc__)
    found = [Run.read(finished_run(folder, tested=True)) for folder in settings.runs or (None,)]
    check_alike(found)
    output = settings.output or found[0].folder
    table = group_table(found)
    write_table(output / GROUPS, table)
    draw(table, found[0], output / "groups.png")
    print(f"{markdown(table)}\nWrote {GROUPS} and groups.png into {display_path(output)}.")


def check_alike(found: list[Run]) -> None:
    """Raises UserError if the runs differ by more than their seed, or if one is named twice."""
    one, *others = ({"config": _but_seed(run), "rows": run.test["split_sha256"]} for run in found)
    if any(other != one for other in others):
        raise UserError("--runs: these trainings differ by more than their seed: name runs of one configuration.")
    if len({run.test["seed"] for run in found}) < len(found):
        raise UserError("--runs: two trainings have the same seed: name each once.")


def _but_seed(run: Run) -> dict[str, Any]:
    config = {name: value for name, value in run.config["config"].items() if name != "run"}
    return config | {"features": run.config["features"], "continued_from": run.config.get("continued_from_sha256")}


def group_table(found: list[Run]) -> pd.DataFrame:
    """A row for each group: its grouping, size, and metric with interval; and one for the widest gap of each grouping.

    Columns: by, group, units (how many), metric, value, low, high
    """
    rows = []
    for metric, groups, units in measured(found):
        for by, of_kind in groups.items():
            trainings = {name: [rated_units(unit, inside) for unit in units] for name, inside in of_kind.items()}
            trainings = {name: one for name, one in trainings.items() if len(one[0].weight) >= MIN_UNITS}
            if len(trainings) < 2:
                continue
            values = {name: estimate(one) for name, one in trainings.items()}
            for name, (value, low, high, _) in values.items():
                rows.append((by, name, len(trainings[name][0].weight), metric, value, low, high))
            best, worst = max(values, key=lambda name: values[name].value), min(values, key=lambda n: values[n].value)
            value, low, high, _ = gap(trainings[best], trainings[worst], among=len(trainings))
            rows.append((by, f"{best} less {worst}", 0, metric, value, low, high))
    if not rows:
        raise UserError(f"No two groups have {MIN_UNITS} tested users or movies: the data is too small.")
    return pd.DataFrame(rows, columns=["by", "group", "units", "metric", "value", "low", "high"])


def measured(found: list[Run]) -> Iterator[tuple[str, Groups, list[UnitMetric]]]:
    """Each metric: its name, how its units are grouped, and its units in each run."""
    users, movies = user_groups(found[0]), movie_groups(found[0])
    if found[0].ranks:
        yield "NDCG@10", users, [ndcg_by_user(run) for run in found]
        yield "found in the ten", movies, [found_by_movie(run) for run in found]
    else:
        for kind, groups in {"user": users, "movie": movies}.items():
            yield "RMSE", groups, [rmse_by(run, kind) for run in found]


# --- groups --------------------------------------------------------------------------------------


def user_groups(run: Run) -> Groups:
    """Users by their known ratings and, where the data has them, by gender and age."""
    count, _ = counts_outside_test(run.saved)
    found = {"known ratings of the user": in_parts(count)}
    features = run.saved.inputs.user_features.numpy() > 0
    for kind in ("gender", "age"):
        named = {
            name.removeprefix(f"{kind}_"): features[:, k]
            for k, name in enumerate(run.config["user_features"])
            if name.startswith(f"{kind}_")
        }
        if named:
            found[kind] = {age_in_words(name) if kind == "age" else name: mask for name, mask in named.items()}
    return found


def age_in_words(name: str) -> str:
    """A group of ages in words: "18 to 24" for "(17.0, 24.0]", as pandas writes it."""
    if not name.startswith("("):
        return name
    low, high = (part.strip(" ()[]") for part in name.split(","))
    first = int(float(low)) + 1
    return f"{first} and older" if high == "inf" else f"{first} to {int(float(high))}"


def movie_groups(run: Run) -> Groups:
    """Movies by their known ratings and the decade of their release."""
    _, count = counts_outside_test(run.saved)
    tested = np.bincount(run.tested()["movie"], minlength=len(count))
    decade = np.array(run.saved.ids.years) // 10 * 10
    of_decade = {f"{one}s": decade == one for one in np.unique(decade[decade > 0])}
    return {"known ratings of the movie": in_parts(count, tested), "decade of the movie": of_decade}


def in_parts(count: np.ndarray, weight: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Groups of about equal size, or equal sum of weights, by these numbers."""
    part = equal_parts(count, PARTS, weight)
    found = {}
    for k in np.unique(part):
        inside = part == k
        found[f"{count[inside].min():,} to {count[inside].max():,}"] = inside
    return found


# --- metrics by unit -----------------------------------------------------------------------------


def ndcg_by_user(run: Run) -> UnitMetric:
    """NDCG@10 of users with relevant test ratings; others have no weight."""
    by_user, n = user_metrics(run), len(run.saved.ids.user_ids)
    total = by_user["ndcg@10"].reindex(range(n)).fillna(0.0).to_numpy()
    return UnitMetric(total, np.isin(np.arange(n), by_user.index).astype(float))


def found_by_movie(run: Run) -> UnitMetric:
    """By movie, the number of relevant test ratings, and how many of these are in the user's top ten."""
    relevant, n = relevant_rows(run), len(run.saved.ids.movie_ids)
    movie, is_found = relevant["movie"].to_numpy(), relevant["rank"].notna()
    return UnitMetric(np.bincount(movie, is_found, n), np.bincount(movie, minlength=n).astype(float))


def rmse_by(run: Run, kind: str) -> UnitMetric:
    """Squared errors of the test ratings, by user or by movie."""
    rows = results_table(run.folder / "test_predictions.csv")
    ids = run.saved.ids.user_ids if kind == "user" else run.saved.ids.movie_ids
    unit = rows[f"{kind}Id"].map({str(one): k for k, one in enumerate(ids)}).to_numpy()
    return squared_by_unit((rows["prediction"] - rows["rating"]).to_numpy(), unit, len(ids))


# --- output --------------------------------------------------------------------------------------


def markdown(table: pd.DataFrame) -> str:
    shown = table[["by", "group", "units", "metric"]].copy()
    shown["units"] = shown["units"].map(lambda n: f"{n:,}" if n else "")
    cells = table[["value", "low", "high"]].itertuples(index=False)
    shown["value [95 % interval]"] = [f"{value:.4f} [{low:.4f}, {high:.4f}]" for value, low, high in cells]
    return markdown_table(shown)


def draw(table: pd.DataFrame, run: Run, target: Path) -> None:
    """The groups with their intervals, a panel for each grouping."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    groups = table[table["units"] > 0]
    kinds = list(dict.fromkeys(groups["by"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(3.2 * len(kinds), 3.4), layout="constrained", squeeze=False)
    for axis, by in zip(axes[0], kinds, strict=True):
        mine = groups[groups["by"] == by]
        error = [mine["value"] - mine["low"], mine["high"] - mine["value"]]
        axis.errorbar(range(len(mine)), mine["value"], yerr=error, fmt="o", capsize=3)
        axis.set_xticks(range(len(mine)), mine["group"], rotation=45, ha="right")
        axis.set_title(by, fontsize=10)
        axis.margins(x=0.15)
        axis.set_ylim(bottom=0)
        axis.set_ylabel(mine["metric"].iloc[0])
        axis.grid(alpha=0.3)
    figure.suptitle(f"{run.test['preset']} on {run.test['dataset']}, {run.test['split']} split, 95 % intervals")
    with atomic_write(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    cli.run(main)
