"""Calibration: groups, counts and errors against plain formulas, and the command as a user runs it."""

import csv

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_ratings

from resultAnalyze.calibration import calibration


def test_perfect_and_shifted_predictions_by_hand():
    prediction = np.linspace(1, 5, 40)
    rows = pd.DataFrame({"prediction": prediction, "rating": prediction - 0.5, "activity": 7, "popularity": range(40)})
    table = calibration(rows, 4)
    assert table["by"].tolist() == ["prediction"] * 4 + ["activity"] + ["popularity"] * 4
    np.testing.assert_allclose(table["prediction"] - table["rating"], 0.5)
    np.testing.assert_allclose(table["rmse"], 0.5)
    assert table[table["by"] == "popularity"]["high"].tolist() == [9, 19, 29, 39]
    assert table.groupby("by")["rows"].sum().tolist() == [40, 40, 40]


def test_the_command_counts_ratings_outside_the_test(run_script, tiny_run, tmp_path):
    done = run_script("resultAnalyze/calibration.py", "--run", tiny_run, "--output", tmp_path / "c.png", "--groups", 3)
    assert "stars off in the mean" in done.stdout
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "c.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    with (tiny_run / "test_predictions.csv").open(encoding="utf-8") as file:
        tested = list(csv.DictReader(file))
    known: dict[str, int] = {}
    for _, movie, _, _ in tiny_ratings():
        known[str(movie)] = known.get(str(movie), 0) + 1
    for row in tested:
        known[row["movieId"]] -= 1
    expected = [known[row["movieId"]] for row in tested]
    popularity = [row for row in table if row["by"] == "popularity"]
    assert min(expected) == float(popularity[0]["low"]) and max(expected) == float(popularity[-1]["high"])
    errors = sum(int(row["rows"]) * float(row["rmse"]) ** 2 for row in popularity)
    plain = sum((float(row["prediction"]) - float(row["rating"])) ** 2 for row in tested)
    assert errors == pytest.approx(plain)
