"""Evaluation of predicted ratings: RMSE and MAE on validation and test, of all rows and of new movies and users."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from Models.Dataset import FittedModel, Model
from Models.evaluation.fitted import as_fitted
from Models.inputs import HIGHEST, LOWEST
from Models.ratings_data import RatingsData
from utils import distributed
from utils.files import UserError
from utils.metrics import mae, rating_metrics, rmse
from utils.splits import Split

EVAL_BATCH = 65_536


@dataclass(frozen=True)
class RatingEvaluator:
    """Rating prediction: every validation and test rating is predicted; RMSE chooses the epoch.

    Users' histories are their training ratings, also in the test.
    """

    data: RatingsData
    split: Split
    monitor: ClassVar = "val_rmse"
    mode: ClassVar = "min"
    test_file: ClassVar = "test_predictions.csv"
    protocol: ClassVar = {"predictions": "clipped to the rating scale", "history": "training ratings"}

    def __post_init__(self):
        """Raises UserError if all training ratings are equal."""
        if self.data.scale.is_constant:
            raise UserError(
                f"All training ratings of {self.data.name} are equal, there is nothing to predict: take a preset that "
                "ranks, such as --preset autoencoder."
            )

    def validate(self, model: Model) -> dict[str, float]:
        return self.metrics(self.predict(as_fitted(model, self.data, self.split.train), self.split.val), self.split.val)

    def test(self, model: Model) -> tuple[dict[str, Any], pd.DataFrame]:
        """Metrics of the test rows, also for the mean training rating; and all predictions with the data's own ids."""
        rows = self.data.by_user_and_time(self.split.test)
        prediction = self.predict(as_fitted(model, self.data, self.split.train), rows)
        columns = self.data.ids(self.data.user[rows], self.data.movie[rows])
        columns |= {"rating": self.data.rating[rows], "prediction": prediction}
        always_mean = np.full(len(rows), self.data.rating[self.split.train].mean(dtype=np.float64))
        metrics = self.metrics(prediction, rows) | {"parts": self.by_part(prediction, rows)}
        return metrics | {"always_mean": self.metrics(always_mean, rows)}, pd.DataFrame(columns)

    @staticmethod
    def summary(metrics: dict[str, Any]) -> str:
        mean = metrics["always_mean"]
        words = f"RMSE {metrics['rmse']:.4f}, MAE {metrics['mae']:.4f}"
        return f"{words} (always the mean rating: {mean['rmse']:.4f}, {mean['mae']:.4f})"

    def predict(self, fitted: FittedModel, rows: np.ndarray) -> np.ndarray:
        """Predicted ratings of these rows, clipped to the scale of the training ratings, [n].

        Rows are predicted user by user, so that each history is read once; the ranks share each batch.
        """
        data = self.data
        order = np.lexsort((data.times()[rows], data.user[rows]))
        batches = np.array_split(rows[order], -(-len(rows) // (EVAL_BATCH * distributed.world_size())))
        mine = [batch[distributed.shard(len(batch))] for batch in batches]
        found = [fitted.predict(data.user[batch], data.movie[batch], data.times()[batch]) for batch in mine]
        by_batch = zip(*distributed.all_gather(found), strict=True)
        prediction = np.empty(len(rows), np.float32)
        prediction[order] = np.concatenate([part for parts in by_batch for part in parts])
        return data.scale.from_model(prediction.clip(LOWEST, HIGHEST))

    def metrics(self, prediction: np.ndarray, rows: np.ndarray) -> dict[str, float]:
        """RMSE and MAE on the data's scale, and `loss`, which is of the ratings as models see them."""
        return rating_metrics(prediction, self.data.rating[rows], HIGHEST * self.data.scale.unit)

    def by_part(self, prediction: np.ndarray, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """Metrics of rows of a `new_movie` or `new_user`, without training ratings, and of the other rows, `warm`.

        Returns:
            rows, rmse and mae of each part that has rows; a row of a new movie and a new user is in both
        """
        new_movie = ~np.isin(self.data.movie[rows], self.data.movie[self.split.train])
        new_user = ~np.isin(self.data.user[rows], self.data.user[self.split.train])
        found = {}
        for name, part in {"warm": ~(new_movie | new_user), "new_movie": new_movie, "new_user": new_user}.items():
            if part.any():
                both = prediction[part], self.data.rating[rows][part]
                found[name] = {"rows": int(part.sum()), "rmse": rmse(*both), "mae": mae(*both)}
        return found
