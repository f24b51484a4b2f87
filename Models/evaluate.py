"""Rating metrics, and predictions over a loader."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from Models.dataLoader import RatingsData
from Models.splits import Split


@torch.inference_mode()
def predict(model: nn.Module, loader: DataLoader) -> Tensor:
    """Predicted stars of every row of the loader in its order, clipped to the rating scale, float32 [n] on the CPU."""
    model.eval()
    stars = [model(batch).stars for batch in loader]
    return torch.cat(stars).clamp(model.sizes.low, model.sizes.high).cpu()


def rmse(prediction: Tensor, rating: Tensor) -> float:
    """Root mean squared error: sqrt(mean((prediction - rating)^2)), in the unit of the ratings."""
    return float((prediction.double() - rating.double()).square().mean().sqrt())


def mae(prediction: Tensor, rating: Tensor) -> float:
    """Mean absolute error: mean(|prediction - rating|), in the unit of the ratings."""
    return float((prediction.double() - rating.double()).abs().mean())


def rating_metrics(prediction: Tensor, rating: Tensor, high: float) -> dict[str, float]:
    """RMSE and MAE in stars and, as `loss`, the original's mean squared error on rating / high."""
    error = rmse(prediction, rating)
    return {"loss": (error / high) ** 2, "rmse": error, "mae": mae(prediction, rating)}


def auc_by_user(user: np.ndarray, score: np.ndarray, liked: np.ndarray) -> np.ndarray:
    """Of each user with liked and other rows, the share of such pairs with the liked row scored higher, float64 [U].

    A tie counts a half: the area under the ROC curve, by ranks (Mann and Whitney 1947).
    """
    rows = pd.DataFrame({"user": user, "liked": liked, "rank": pd.Series(score).groupby(user).rank().to_numpy()})
    n, n_liked = rows.groupby("user").size(), rows.groupby("user")["liked"].sum()
    ranks = rows[rows["liked"]].groupby("user")["rank"].sum().reindex(n.index, fill_value=0)
    both = (n_liked > 0) & (n_liked < n)
    return ((ranks - n_liked * (n_liked + 1) / 2) / (n_liked * (n - n_liked)))[both].to_numpy()


def warm_and_cold(prediction: Tensor, data: RatingsData, split: Split, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics of the test rows by what training knew: `warm`, or of a `new_movie` or `new_user` without training rows.

    Args:
        prediction: predicted stars of these rows, [n_test]
        rows: the test rows in the predictions' order

    Returns:
        rows, rmse and mae of each part that has rows; a row of a new movie and a new user is in both
    """
    new_movie = ~np.isin(data.movie[rows], data.movie[split.train])
    new_user = ~np.isin(data.user[rows], data.user[split.train])
    rating = torch.from_numpy(data.rating[rows])
    metrics = {}
    for name, part in {"warm": ~(new_movie | new_user), "new_movie": new_movie, "new_user": new_user}.items():
        if part.any():
            some = torch.from_numpy(part)
            found = prediction[some], rating[some]
            metrics[name] = {"rows": int(part.sum()), "rmse": rmse(*found), "mae": mae(*found)}
    return metrics
