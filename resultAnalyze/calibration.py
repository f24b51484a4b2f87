#!/usr/bin/env python3
"""Can the predicted stars be believed: predicted against true stars, and the error by user activity and popularity.

    python resultAnalyze/calibration.py
    python resultAnalyze/calibration.py --run runs/20260101-120000 --output calibration.png

All from the run's test_predictions.csv and checkpoint. Groups hold about as many test ratings each; activity and
popularity count a user's and a movie's ratings outside the test. Writes the picture and, beside it, the numbers as CSV.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd
import torch

from Models.checkpoint import Catalogue, read_checkpoint, rebuild
from utils import cli, runs
from utils.cli import flag, positive, shown
from utils.files import ROOT, UserError, read_json, write_aside


@dataclass(frozen=True)
class Settings:
    run: Path | None = cli.run_flag("folder of a finished training (default: the newest in runs/)")
    groups: int = flag(10, "groups of test ratings", type=positive)
    output: Path = flag(ROOT / "resultAnalyze" / "calibration.png", "where the picture goes", metavar="FILE")


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    run = runs.finished_run(settings.run)
    if not (run / "test_predictions.csv").is_file():
        raise UserError(f"{shown(run)} was trained to rank and predicts no stars: name another with --run.")
    predictions = pd.read_csv(run / "test_predictions.csv", dtype={"userId": str, "movieId": str})
    _, catalogue = rebuild(read_checkpoint(run / "best.pt"), torch.device("cpu"))
    table = calibration(with_counts(predictions, catalogue), settings.groups)
    runs.write_table(settings.output.with_suffix(".csv"), table.to_dict("records"))
    figure = draw(table, read_json(run / runs.TEST_METRICS))
    with write_aside(settings.output) as aside:
        figure.savefig(aside, format="png", dpi=150)
    bias = (predictions["prediction"] - predictions["rating"]).mean()
    slope = np.polyfit(predictions["prediction"], predictions["rating"], 1)[0]
    print(f"Predictions are {bias:+.3f} stars off in the mean; a predicted star more is {slope:.2f} true stars more.")
    print(f"Wrote {shown(settings.output)} and {shown(settings.output.with_suffix('.csv'))} of {shown(run)}.")


def with_counts(predictions: pd.DataFrame, catalogue: Catalogue) -> pd.DataFrame:
    """The predictions with the user's `activity` and the movie's `popularity`: ratings of theirs outside the test."""
    rated = pd.Series(catalogue.seen_start.diff().numpy(), [str(user) for user in catalogue.user_ids])
    n_movies = len(catalogue.movie_ids)
    counts = np.bincount(catalogue.seen_movies.numpy(), minlength=n_movies)
    of_movie = pd.Series(counts, [str(movie) for movie in catalogue.movie_ids])
    tested = {name: predictions[name].map(predictions[name].value_counts()) for name in ("userId", "movieId")}
    return predictions.assign(
        activity=predictions["userId"].map(rated) - tested["userId"],
        popularity=predictions["movieId"].map(of_movie) - tested["movieId"],
    )


def calibration(rows: pd.DataFrame, groups: int) -> pd.DataFrame:
    """A line for each group of test ratings, by prediction, activity and popularity.

    Columns: by, low and high of what the rows are grouped by, rows, and their mean prediction, mean rating and RMSE.
    """
    lines = []
    for by in ("prediction", "activity", "popularity"):
        edges = np.unique(np.quantile(rows[by], np.linspace(0, 1, groups + 1)))
        for _, group in rows.groupby(np.searchsorted(edges[1:-1], rows[by])):
            error = group["prediction"] - group["rating"]
            means = {"prediction": group["prediction"].mean(), "rating": group["rating"].mean()}
            bounds = {"by": by, "low": group[by].min(), "high": group[by].max(), "rows": len(group)}
            lines.append(bounds | means | {"rmse": (error**2).mean() ** 0.5})
    return pd.DataFrame(lines)


def draw(table: pd.DataFrame, test: dict):
    """Reliability on the left, the error by activity and popularity beside it."""
    import matplotlib

    matplotlib.use("agg")  # needs no screen
    import matplotlib.pyplot as plt

    figure, (left, *others) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    reliable = table[table["by"] == "prediction"]
    left.plot(reliable["prediction"], reliable["rating"], "o-", label="mean of a group")
    ends = [reliable["prediction"].min(), reliable["prediction"].max()]
    left.plot(ends, ends, "--", color="gray", label="perfectly calibrated")
    left.set(xlabel="predicted stars", ylabel="true stars", title=f"{test['dataset']}, {test['split']} split")
    left.legend()
    names = {"activity": "ratings of the user outside the test", "popularity": "ratings of the movie outside the test"}
    for axes, (by, label) in zip(others, names.items(), strict=True):
        part = table[table["by"] == by]
        words = [f"{low:g}-{high:g}" for low, high in zip(part["low"], part["high"], strict=True)]
        axes.bar(words, part["rmse"])
        axes.axhline(test["rmse"], linestyle="--", color="gray", label=f"all: {test['rmse']:.4f}")
        axes.set(xlabel=label, ylabel="RMSE in stars", title=f"error by {by}")
        axes.tick_params("x", rotation=45)
        axes.legend()
    return figure


if __name__ == "__main__":
    cli.run(main)
