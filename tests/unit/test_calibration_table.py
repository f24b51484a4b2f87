"""Calibration: groups, counts and errors against plain formulas."""

import warnings

import numpy as np
import pandas as pd
import torch
from helpers import rows_of, tiny_ratings

from Models.checkpoint import load_model
from resultAnalyze.calibration import calibration, in_words, with_counts


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


def test_what_predictions_mean_in_words():
    """Constant predictions have no slope, and cause no warning of a failed fit."""
    rows = pd.DataFrame({"prediction": [2.0, 3.0, 4.0], "rating": [1.0, 3.0, 5.0]})
    assert (
        in_words(rows) == "The mean prediction is +0.000 off; a prediction higher by 1 means a rating higher by 2.00."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = in_words(rows.assign(prediction=3.5))
    assert words == "The mean prediction is +0.500 off; all predictions are 3.500, so they do not tell movies apart."
