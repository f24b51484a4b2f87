"""A trained model as evaluation sees it, with the histories that it is given."""

import functools

import numpy as np
import torch
from torch import Tensor

from Models.Dataset import FittedModel, Model
from Models.ratings_data import RatingsData


def as_fitted(
    model: Model, data: RatingsData, known: np.ndarray, request_time: np.ndarray | None = None
) -> FittedModel:
    """A model of this repo as evaluation sees it.

    Args:
        known: the rows of the ratings that are the users' histories
        request_time: when each user's list is requested, int64 [n_users]; None if unknown
    """
    device = next(model.parameters()).device
    history = functools.cache(lambda: data.history(known).to(device))  # not all models need it
    times = None if request_time is None else torch.from_numpy(request_time).to(device)
    model.eval()

    def predict(user: np.ndarray, movie: np.ndarray, time: np.ndarray) -> np.ndarray:
        batch = {"user": user, "movie": movie, "time": time}
        with torch.inference_mode():
            columns = {name: torch.from_numpy(column).to(device) for name, column in batch.items()}
            return model.predict(columns, history() if model.reads_histories else None).cpu().numpy()

    def score(users: Tensor) -> Tensor:
        users = users.to(device)
        with torch.inference_mode():
            return model.score(history().pad(users, None if times is None else times[users]))

    return FittedModel(predict if model.config.task == "rating" else None, score)
