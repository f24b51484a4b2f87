#!/usr/bin/env python3
"""Are predictions calibrated? Predicted against true ratings, and the error by user activity and movie popularity.

    python resultAnalyze/calibration.py
    python resultAnalyze/calibration.py --run runs/RUN --output calibration.png

Everything is computed from the run's test_predictions.csv and checkpoint. Groups have about equal numbers of test
ratings; activity and popularity count a user's and a movie's ratings outside the test. Writes the picture and, beside
it, the numbers as CSV.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd
import torch

from Models.checkpoint import SavedModel, load_model
from Models.inputs import PositiveInt
from resultAnalyze.run_files import counts_outside_test, equal_parts, results_table
from utils import cli, runs
from utils.cli import display_path
from utils.config import FileName, OptionalFolder, parse
from utils.files import ROOT, UserError, atomic_write, read_json, write_table


@dataclass(frozen=True)
class Settings:
    run: OptionalFolder = None
    """folder of a finished training (default: the newest in runs/)"""
    groups: PositiveInt = 10
    """number of groups of test ratings"""
    output: FileName = ROOT / "resultAnalyze" / "calibration.png"
    """where the picture goes"""


def main() -> None:
    settings = parse(Settings, __doc__)
    run = runs.finished_run(settings.run, tested=True, holding="test_predictions.csv")
    if not (run / "test_predictions.csv").is_file():
        raise UserError(f"{display_path(run)} was trained to rank and predicts no ratings: name another with --run.")
    predictions = results_table(run / "test_predictions.csv")
    rows = with_counts(predictions, load_model(run / "best.pt", torch.device("cpu")))
    table = calibration(rows, settings.groups)
    write_table(settings.output.with_suffix(".csv"), table)
    figure = draw(table, read_json(run / runs.TEST_METRICS))
    with atomic_write(settings.output) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    print(in_words(predictions))
    print(f"Wrote {display_path(settings.output)} and its numbers as CSV, of {display_path(run)}.")


NO_SPREAD = 1e-3  # range of the predictions below which a slope means nothing


def in_words(predictions: pd.DataFrame) -> str:
    """The mean error of predictions and, by linear regression, what a difference between two of them means."""
    prediction, rating = predictions["prediction"], predictions["rating"]
    words = f"The mean prediction is {(prediction - rating).mean():+.3f} off; "
    if prediction.max() - prediction.min() < NO_SPREAD:
        return f"{words}all predictions are {prediction.iloc[0]:.3f}, so they do not tell movies apart."
    slope = np.polyfit(prediction, rating, 1)[0]
    return f"{words}a prediction higher by 1 means a rating higher by {slope:.2f}."


def with_counts(predictions: pd.DataFrame, saved: SavedModel) -> pd.DataFrame:
    """The predictions with the user's `activity` and the movie's `popularity`: their ratings outside the test."""
    of_users, of_movies = counts_outside_test(saved)
    activity = predictions["userId"].map(pd.Series(of_users, map(str, saved.ids.user_ids)))
    popularity = predictions["movieId"].map(pd.Series(of_movies, map(str, saved.ids.movie_ids)))
    return predictions.assign(activity=activity, popularity=popularity)


def calibration(rows: pd.DataFrame, groups: int) -> pd.DataFrame:
    """A row for each group of test ratings, by prediction, activity and popularity.

    Columns: by (the grouping), its low and high in the group, rows, and their mean prediction, mean rating and RMSE.
    """
    lines = []
    for by in ("prediction", "activity", "popularity"):
        for _, group in rows.groupby(equal_parts(rows[by].to_numpy(), groups)):
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
    left.set(
        xlabel="prediction",
        ylabel="rating",
        title=f"{test['dataset']}, {test['split']} split".encode(errors="replace").decode(),
    )
    left.legend()
    names = {"activity": "ratings of the user outside the test", "popularity": "ratings of the movie outside the test"}
    for axes, (by, label) in zip(others, names.items(), strict=True):
        part = table[table["by"] == by]
        words = [f"{low:g}-{high:g}" for low, high in zip(part["low"], part["high"], strict=True)]
        axes.plot(words, part["rmse"], "o")
        axes.axhline(test["rmse"], linestyle="--", color="gray", label=f"all: {test['rmse']:.4f}")
        axes.set(xlabel=label, ylabel="RMSE", title=f"error by {by}")
        axes.tick_params("x", rotation=45)
        axes.legend()
    return figure


if __name__ == "__main__":
    cli.run(main)
