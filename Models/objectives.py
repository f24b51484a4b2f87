"""What a training is for, stars or ranking: its rows, what validation and test measure, what the test writes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from Models.baselines import Rows, most_popular
from Models.dataLoader import RatingsData, make_loader
from Models.evaluate import predict, rating_metrics, warm_and_cold
from Models.histories import take_past
from Models.inputs import describe
from Models.lists import UserLists
from Models.ranking import Ranking, Scorer, beyond_accuracy, mean_metrics, metrics_at, rank_all, rank_sampled
from Models.splits import Split
from utils.files import UserError
from utils.runs import write_table

EVAL_BATCH = 65_536
K = 10  # places of a list that count
SAMPLED = 99  # negatives of the sampled protocol


@dataclass(frozen=True)
class RatingObjective:
    """Stars: the epoch with the least validation RMSE is kept, and every test rating predicted."""

    data: RatingsData
    split: Split
    chosen_by = "val_rmse"
    better: Callable = min
    protocol = "predictions clipped to the rating scale"

    def training_rows(self, whole_users: bool) -> np.ndarray:
        return self.split.train

    def validate(self, model: nn.Module) -> dict[str, float]:
        return self.measure(model, self.split.val)[1]

    def test(self, model: nn.Module, folder: Path) -> dict[str, Any]:
        """Metrics of the test rows; writes test_predictions.csv, in the user's own ids."""
        rows = self.data.by_user_and_time(self.split.test)
        stars, metrics = self.measure(model, rows)
        names = ("userId", "movieId", "rating", "prediction")
        columns = (*ids_of(self.data, rows), self.data.rating[rows].tolist(), stars.tolist())
        table = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        write_table(folder / "test_predictions.csv", table)
        return metrics | {"parts": warm_and_cold(stars, self.data, self.split, rows)}

    @staticmethod
    def in_words(metrics: dict[str, Any]) -> str:
        return f"RMSE {metrics['rmse']:.4f}, MAE {metrics['mae']:.4f}"

    def measure(self, model: nn.Module, rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Predicted stars of these rows, user by user so that each history is looked at once, and their metrics."""
        rows = self.data.by_user_and_time(rows)
        stars = predict(model, make_loader(self.data, rows, EVAL_BATCH), device_of(model))
        return stars, rating_metrics(stars, torch.from_numpy(self.data.rating[rows]), model.sizes.high)


@dataclass(frozen=True)
class RankingObjective:
    """Lists: the epoch with the highest validation NDCG@10 over the whole catalogue is kept.

    relevant: stars from which a rating is one that a list should hold
    """

    data: RatingsData
    split: Split
    relevant: float
    chosen_by = f"val_ndcg@{K}"
    better: Callable = max

    def __post_init__(self):
        """Raises UserError where a part has ratings but no relevant one."""
        for name, rows in (("training", self.split.train), ("validation", self.split.val), ("test", self.split.test)):
            if len(rows) and not len(self.only_relevant(rows)):
                raise UserError(f"No {name} rating has {self.relevant:g} stars or more: lower --relevant.")

    @property
    def protocol(self) -> str:
        return (
            f"relevant: ratings of {self.relevant:g} stars or more; the whole catalogue of {len(self.data.movies):,} "
            "movies ranked, known ones out, ties against the model"
        )

    def training_rows(self, whole_users: bool) -> np.ndarray:
        """All training rows for models of histories, whose inputs they are, too; otherwise the relevant ones."""
        return self.split.train if whole_users else self.only_relevant(self.split.train)

    def only_relevant(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.data.rating[rows] >= self.relevant]

    def validate(self, model: nn.Module) -> dict[str, float]:
        metrics = mean_metrics(self.rank(model, self.split.train, self.split.val), [K])
        return {name: metrics[name] for name in (f"hr@{K}", f"ndcg@{K}")}

    def test(self, model: nn.Module, folder: Path) -> dict[str, Any]:
        """Metrics of the lists, which test_topn.csv gets, beside those of the most popular movies.

        What the user did up to the test is known: the validation rows join the histories and are no candidates.
        """
        known = np.concatenate([self.split.train, self.split.val])
        ranking = self.rank(model, known, self.split.test)
        write_table(folder / "test_topn.csv", self.rows_of(ranking))
        popularity = torch.from_numpy(np.bincount(self.data.movie[known], minlength=len(self.data.movies)))
        metrics: dict[str, Any] = mean_metrics(ranking, [K])
        metrics |= beyond_accuracy(ranking.lists, popularity, len(self.data.user_ids))
        popular = most_popular(Rows.of(self.data, known), seed=0).score
        popular = rank_all(popular, self.lists(known), self.relevant_lists(self.split.test), K)
        metrics["users"] = len(ranking.users)
        metrics["most_popular"] = mean_metrics(popular, [K])
        unseen = len(self.data.movies) - int(self.lists(known).counts().max())
        if int(ranking.n_relevant.max()) == 1 and unseen > SAMPLED:
            score, test = scorer(model, self.data, known), self.relevant_lists(self.split.test)
            ranks = rank_sampled(score, self.lists(known), test, seed=0, n_negatives=SAMPLED)
            by_user = metrics_at(ranks, torch.ones(len(ranks), dtype=torch.int64), K)
            metrics[f"among_{SAMPLED}_sampled"] = {name: float(values.mean()) for name, values in by_user.items()}
        return metrics

    @staticmethod
    def in_words(metrics: dict[str, Any]) -> str:
        popular = metrics["most_popular"]
        words = f"HR@{K} {metrics[f'hr@{K}']:.4f}, NDCG@{K} {metrics[f'ndcg@{K}']:.4f} (most popular: "
        return words + f"{popular[f'hr@{K}']:.4f}, {popular[f'ndcg@{K}']:.4f})"

    def rank(self, model: nn.Module, known: np.ndarray, rows: np.ndarray) -> Ranking:
        """The relevant ones of these rows among all movies that the known rows don't hold."""
        score = scorer(model, self.data, known)
        return rank_all(score, self.lists(known), self.relevant_lists(rows), top_n=K)

    def lists(self, rows: np.ndarray) -> UserLists:
        return UserLists.of(self.data.user[rows], self.data.movie[rows], len(self.data.user_ids))

    def relevant_lists(self, rows: np.ndarray) -> UserLists:
        return self.lists(self.only_relevant(rows))

    def rows_of(self, ranking: Ranking) -> list[dict[str, Any]]:
        """The lists in the user's own ids, best first."""
        movies, table = self.data.movies["movie"].tolist(), []
        for user, listed, scores in zip(ranking.users, ranking.lists, ranking.scores, strict=True):
            for rank, (movie, score) in enumerate(zip(listed.tolist(), scores.tolist(), strict=True), start=1):
                if movie >= 0:
                    row = {"userId": self.data.user_ids[user], "rank": rank, "movieId": movies[movie], "score": score}
                    table.append(row)
        return table


Objective = RatingObjective | RankingObjective


def scorer(model: nn.Module, data: RatingsData, known: np.ndarray) -> Scorer:
    """The model's scores of every movie; a model of histories looks at the known rows, and at no others."""
    model.eval()
    device = device_of(model)
    if not model.batching.whole_users:
        return lambda users: model.score(users.to(device))
    history = describe(data, known)[1].to(device)
    count = torch.bincount(history.user, minlength=len(data.user_ids))
    return lambda users: model.score_past(take_past(history, count, users.to(device)))


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def ids_of(data: RatingsData, rows: np.ndarray) -> tuple[list, list]:
    """The user's own ids of these rows' users and movies."""
    users, movies = data.user_ids, data.movies["movie"].tolist()
    return [users[i] for i in data.user[rows]], [movies[i] for i in data.movie[rows]]
