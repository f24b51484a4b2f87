"""A finished run, read from its files: the test ratings, the lists or predictions, and metrics by user."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from Models.checkpoint import SavedModel, load_model
from Models.evaluation.rankings import of_evaluated
from resultAnalyze.intervals import UnitMetric
from utils import runs
from utils.files import read_json
from utils.splits import TEST


@dataclass(frozen=True)
class Run:
    """A finished run, read from its files."""

    folder: Path
    test: dict[str, Any]  # test_metrics.json
    config: dict[str, Any]  # config.json
    epochs: pd.DataFrame
    saved: SavedModel

    @classmethod
    def read(cls, folder: Path) -> "Run":
        test, config = read_json(folder / runs.TEST_METRICS), read_json(folder / "config.json")
        saved = load_model(folder / "best.pt", torch.device("cpu"))
        return cls(folder, test, config, pd.read_csv(folder / "metrics.csv"), saved)

    @property
    def ranks(self) -> bool:
        return self.test["task"] == "ranking"

    def tested(self) -> pd.DataFrame:
        """The test ratings: indices of user and movie, and the rating on the data's own scale."""
        known, rows = self.saved.ratings, self.saved.ratings.part == TEST
        columns = {"user": known.history.users()[rows], "movie": known.history.movie[rows]}
        rating = self.saved.model.stats.scale.from_model(known.history.rating[rows])
        return pd.DataFrame({name: column.numpy() for name, column in (columns | {"rating": rating}).items()})


def results_table(path: Path) -> pd.DataFrame:
    """A table of test results; ids stay as they were written, including "NA" and "null"."""
    return pd.read_csv(path, dtype={"userId": str, "movieId": str}, keep_default_na=False)


def top_lists(run: Run) -> pd.DataFrame:
    """test_topn.csv by indices: user, movie, rank and score."""
    table = results_table(run.folder / "test_topn.csv")
    users = {str(user): k for k, user in enumerate(run.saved.ids.user_ids)}
    movies = {str(movie): k for k, movie in enumerate(run.saved.ids.movie_ids)}
    columns = {"user": table["userId"].map(users), "movie": table["movieId"].map(movies), "rank": table["rank"]}
    return pd.DataFrame(columns | {"score": table["score"]})


def counts_outside_test(saved: SavedModel) -> tuple[np.ndarray, np.ndarray]:
    """How many ratings outside the test each user has, [n_users], and each movie, [n_movies]."""
    history, rows = saved.ratings.history, saved.ratings.part != TEST
    of_users = np.bincount(history.users()[rows], minlength=len(saved.ids.user_ids))
    return of_users, np.bincount(history.movie[rows], minlength=len(saved.ids.movie_ids))


def relevant_rows(run: Run) -> pd.DataFrame:
    """The relevant test ratings of the users who were evaluated, and their `rank`: NaN outside the user's list."""
    tested = run.tested()
    scale = run.saved.model.stats.scale
    rounded = 1e-5 * (scale.high - scale.low)  # the largest rounding error of ratings kept on the models' scale
    relevant = tested[tested["rating"] >= run.test["relevance_threshold"] - rounded]
    relevant = relevant[of_evaluated(relevant["user"].to_numpy())]
    return relevant.merge(top_lists(run).drop(columns="score"), on=["user", "movie"], how="left")


def user_metrics(run: Run) -> pd.DataFrame:
    """HR, NDCG and recall at 10 of each user with relevant test ratings, from the lists alone."""
    found = relevant_rows(run)
    gain = (1 / np.log2(1 + found["rank"])).fillna(0.0).groupby(found["user"]).sum()
    hits, n = found["rank"].notna().groupby(found["user"]).sum(), found.groupby("user").size()
    ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))[np.minimum(n, 10) - 1]
    return pd.DataFrame({"hr@10": (hits > 0).astype(float), "ndcg@10": gain / ideal, "recall@10": hits / n})


def rmse_by_user(run: Run) -> UnitMetric:
    rows = results_table(run.folder / "test_predictions.csv")
    squared = (rows["prediction"] - rows["rating"]).pow(2).groupby(rows["userId"])
    return UnitMetric(squared.sum().to_numpy(), squared.size().to_numpy(float), root=True)


def equal_parts(values: np.ndarray, n: int, weight: np.ndarray | None = None) -> np.ndarray:
    """Which of n groups of about equal size, or equal sum of weights, each value is in, int64 [len(values)].

    Equal values are in one group.
    """
    repeated = values if weight is None else np.repeat(values, weight)
    edges = np.unique(np.quantile(repeated, np.linspace(0, 1, n + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left")
