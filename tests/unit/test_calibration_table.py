"""Calibration: groups, counts and errors against plain formulas."""

import numpy as np
import pandas as pd
import torch
from helpers import rows_of, tiny_ratings

from Models.checkpoint import load_model
from resultAnalyze.calibration import calibration, with_counts


def test_perfect_and_shifted_predictions_by_hand():
    prediction = np.linspace(1, 5, 40)
    rows = pd.DataFrame({"prediction": prediction, "rating": prediction - 0.5, "activity": 7, "popularity": range(40)})
    table = calibration(rows, 4)
    assert table["by"].tolist() == ["prediction"] * 4 + ["activity"] + ["popularity"] * 4
    np.testing.assert_allclose(table["prediction"] - table["rating"], 0.5)
    np.testing.assert_allclose(table["rmse"], 0.5)
    assert table[table["by"] == "popularity"]["high"].tolist() == [9, 19, 29, 39]
    assert table.groupby("by")["rows"].sum().tolist() == [40, 40, 40]


def test_activity_and_popularity_count_ratings_outside_the_test(tiny_run):
    """Recounted from the files of the run and the data."""
    tested = {(row["userId"], row["movieId"]) for row in rows_of(tiny_run / "test_predictions.csv")}
    outside = [(str(u), str(m)) for u, m, *_ in tiny_ratings() if (str(u), str(m)) not in tested]
    predictions = pd.read_csv(tiny_run / "test_predictions.csv", dtype={"userId": str, "movieId": str})
    found = with_counts(predictions, load_model(tiny_run / "best.pt", torch.device("cpu")))
    users, movies = zip(*outside, strict=True)
    assert found["activity"].tolist() == [users.count(user) for user in predictions["userId"]]
    assert found["popularity"].tolist() == [movies.count(movie) for movie in predictions["movieId"]]
