"""The formula at the head of the NCF's file, computed with plain loops; and what its tests share."""

import dataclasses
import math

import numpy as np
import torch
from helpers import batch_of, random_model

from Models.features import FeatureConfig
from Models.ratings_data import RatingsData, model_inputs
from Models.Recommender import SESSION_BREAKS, NCFConfig, Recommender
from Models.sequences import NEW_USER, PaddedHistory

TOWERS = NCFConfig().towers
EVERY_MOVIE = torch.arange(27)
ASKED = [(0, 3), (0, 24), (7, 26), (7, 0), (12, 25), (29, 11)]  # user, movie; 24 has no year, 25 and 26 no rating


def made(data: RatingsData, rows: np.ndarray, std: float = 0.3, blocks=None, **config) -> Recommender:
    sizes = {"embedding_dim": 4, "hidden_dim": 5, "history_dropout": 0.0}
    return random_model(data, rows, NCFConfig(**sizes | config), std=std, blocks=blocks)


@torch.inference_mode()
def predicted(model: Recommender, data: RatingsData, rows: np.ndarray, known: np.ndarray) -> torch.Tensor:
    """The predictions of these rows from the ratings of the rows `known`."""
    return model.predict(batch_of(data, rows), data.history(known))


def asked_at(pairs: list[tuple[int, int]], time: int) -> dict[str, torch.Tensor]:
    """A batch of users and movies at one time."""
    user, movie = torch.tensor(pairs).T
    return {"user": user, "movie": movie, "time": torch.full_like(user, time)}


def all_movies(user: int, time: int) -> dict[str, torch.Tensor]:
    return asked_at([(user, movie) for movie in range(27)], time)


def of_user(data: RatingsData, rows: np.ndarray, user: int) -> np.ndarray:
    """The user's own of these rows, oldest first."""
    return data.by_user_and_time(rows[data.user[rows] == user])


def as_new(history: PaddedHistory) -> PaddedHistory:
    return dataclasses.replace(history, user=torch.full_like(history.user, NEW_USER))


class ByHand:
    """The formula with plain loops in float64, from the data and the values of the model's parameters alone."""

    def __init__(self, model: Recommender, data: RatingsData, train: np.ndarray, blocks=None):
        self.data, self.year = data, data.movies["year"].fillna(0).astype(int).tolist()
        self.raters = {i: [u for u, j in self.pairs(train) if j == i] for i in range(27)}
        self.value = {name: part.detach().double().numpy() for name, part in model.named_parameters()}
        self.features = model_inputs(data, train, FeatureConfig(blocks))[1].features.double().numpy()
        self.hidden_dim = model.config.hidden_dim
        self.sessions = [self.sessions_of(train, gap) for gap in SESSION_BREAKS]

    def sessions_of(self, train: np.ndarray, gap: int) -> list[tuple[int, list[int]]]:
        """The user and the times of each session of the training ratings, in the order of users and times."""
        found = []
        for user in range(30):
            for time in sorted(self.data.time[of_user(self.data, train, user)].tolist()):
                if not found or found[-1][0] != user or time - found[-1][1][-1] > gap:
                    found.append((user, []))
                found[-1][1].append(time)
        return found

    def session_values(self, name: str, user: int, time: int) -> list[float]:
        """`mean` or `log_std` of the bias of each session of the user that a rating at this time belongs to."""
        found = []
        for k, (gap, sessions) in enumerate(zip(SESSION_BREAKS, self.sessions, strict=True)):
            near = [
                n for n, (u, times) in enumerate(sessions) if u == user and times[0] - gap <= time <= times[-1] + gap
            ]
            found += [float(self.value[f"sessions.biases.{k}.{name}"][near[0], 0])] if near else []
        return found

    def pairs(self, rows: np.ndarray) -> list[tuple[int, int]]:
        return list(zip(self.data.user[rows].tolist(), self.data.movie[rows].tolist(), strict=True))

    def f(self, movie: int) -> np.ndarray:
        """Title vector and genres, the decade, and the popularity predicted from these."""
        decade = np.zeros(13)
        if self.year[movie]:
            decade[(self.year[movie] - 1900) // 10] = 1
        return np.concatenate([self.features[movie, :12], decade, self.features[movie, 25:]])

    def x(self, user: int, movie: int, time: int, times: list[int]) -> np.ndarray:
        """Demographics, and the clock of a user who rated at these times."""
        demographics = np.zeros(3) if user == NEW_USER else self.data.user_features[user]
        day, week = (2 * math.pi * (time % size) / size for size in (86_400, 7 * 86_400))
        days = max(time - min(times, default=time), 0) / 86_400
        older = sum(one < time for one in times)
        age = min(max(1970 + time / (365.25 * 86_400) - self.year[movie], 0), 100) if self.year[movie] else 0
        waves = math.sin(day), math.cos(day), math.sin(week), math.cos(week)
        return np.array([*demographics, math.log1p(days) / 4, math.log1p(older) / 4, *waves, age / 25])

    def z_of_movie(self, movie: int, without: int | None = None) -> np.ndarray:
        """The movie's vector; `without` leaves this user out of the audience."""
        z = self.value["movies.mean"][movie] + self.f(movie) @ self.value["feature_weights"][:, :-1]
        raters = [rater for rater in self.raters[movie] if rater != without]
        for rater in raters:
            z = z + self.value["audience"][rater] / math.sqrt(len(raters))
        return z

    def z_of_user(self, p: np.ndarray, x: np.ndarray, rated: list[int]) -> np.ndarray:
        z = p + x @ self.value["context_weights"][:, :-1]
        for movie in rated:
            z = z + self.value["history"][movie] / math.sqrt(len(rated) + 20)
        return z

    def mlp(self, z_u: np.ndarray, z_i: np.ndarray, x: np.ndarray) -> float:
        if not self.hidden_dim:
            return 0.0
        hidden = self.value["mlp.0.weight"] @ np.concatenate([z_u, z_i, x]) + self.value["mlp.0.bias"]
        return float(self.value["mlp.2.weight"][0] @ np.maximum(hidden, 0) + self.value["mlp.2.bias"][0])

    def prediction(self, user: int, movie: int, time: int, known: np.ndarray, leave_out: bool = False) -> float:
        """For a user of the data with the ratings of rows `known`; `leave_out` keeps this rating out of the sums."""
        own = of_user(self.data, known, user)
        rated = [i for i in self.data.movie[own].tolist() if not (leave_out and i == movie)]
        *p, bias = self.value["users.mean"][user]
        bias += sum(self.session_values("mean", user, time))
        x = self.x(user, movie, time, self.data.time[own].tolist())
        return self.of_parts(np.array(p), bias, x, movie, rated, without=user if leave_out else None)

    def of_parts(
        self, p: np.ndarray, bias: float, x: np.ndarray, movie: int, rated: list[int], without: int | None = None
    ) -> float:
        z_u, z_i = self.z_of_user(p, x, rated), self.z_of_movie(movie, without)
        biases = bias + self.value["movie_bias"][movie] + self.f(movie) @ self.value["feature_weights"][:, -1]
        from_context = x @ self.value["context_weights"][:, -1]
        return self.value["mean"] + biases + from_context + z_u @ z_i + self.mlp(z_u, z_i, x)


def trained(model: Recommender, batch: dict[str, torch.Tensor], steps: int = 60) -> list[float]:
    """The losses of some steps on one batch; the steps become smaller."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.05), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses
