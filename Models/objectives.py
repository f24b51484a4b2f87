"""What a training is for, stars or ranking: its rows, what validation and test measure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from Models import parallel
from Models.baselines import Rows, most_popular
from Models.dataLoader import RatingsData, make_loader
from Models.evaluate import predict, rating_metrics, warm_and_cold
from Models.histories import take_past
from Models.inputs import describe
from Models.lists import UserLists
from Models.ranking import Ranking, Scorer, beyond_accuracy, mean_metrics, metrics_at, rank_all, rank_sampled
from Models.splits import Split
from utils.files import UserError

EVAL_BATCH = 65_536
K = 10  # places of a list that count
Columns = dict[str, np.ndarray]  # of a table, by name
SAMPLED = 99  # negatives of the sampled protocol


@dataclass(frozen=True)
class RatingObjective:
    """Stars: the epoch with the least validation RMSE is kept, and every test rating predicted."""

    data: RatingsData
    split: Split
    chosen_by = "val_rmse"
    better: Callable = min
    protocol = "predictions clipped to the rating scale"
    test_file = "test_predictions.csv"

    def training_rows(self, whole_users: bool) -> np.ndarray:
        return self.split.train

    def validate(self, model: nn.Module) -> dict[str, float]:
        return self.measure(model, self.split.val)[1]

    def test(self, model: nn.Module) -> tuple[dict[str, Any], Columns]:
        """Metrics of the test rows, and each row's prediction in the user's own ids."""
        rows = self.data.by_user_and_time(self.split.test)
        stars, metrics = self.measure(model, rows)
        columns = self.data.ids(self.data.user[rows], self.data.movie[rows])
        columns |= {"rating": self.data.rating[rows], "prediction": stars.numpy()}
        return metrics | {"parts": warm_and_cold(stars, self.data, self.split, rows)}, columns

    @staticmethod
    def in_words(metrics: dict[str, Any]) -> str:
        return f"RMSE {metrics['rmse']:.4f}, MAE {metrics['mae']:.4f}"

    def measure(self, model: nn.Module, rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Predicted stars of these rows and their metrics.

        For a model of histories, user by user, so that each history is looked at once. The ranks share the rows.
        """
        if model.batching.whole_users:
            rows = self.data.by_user_and_time(rows)
        mine = rows[parallel.share(len(rows))]
        loader = make_loader(self.data, mine, EVAL_BATCH, device=device_of(model))
        stars = torch.cat(parallel.gathered(predict(model, loader)))
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
    test_file = "test_topn.csv"

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

    def test(self, model: nn.Module) -> tuple[dict[str, Any], Columns]:
        """Metrics of the lists beside those of the most popular movies, and the lists in the user's own ids.

        What the user did up to the test is known: the validation rows join the histories and are no candidates.
        """
        known = np.concatenate([self.split.train, self.split.val])
        ranking = self.rank(model, known, self.split.test)
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
        return metrics, self.listed(ranking)

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

    def listed(self, ranking: Ranking) -> Columns:
        """The lists in the user's own ids, best first, as columns."""
        row, place = (ranking.lists >= 0).nonzero(as_tuple=True)
        ids = self.data.ids(ranking.users[row].numpy(), ranking.lists[row, place].numpy())
        rank, score = (place + 1).numpy(), ranking.scores[row, place].numpy()
        return {"userId": ids["userId"], "rank": rank, "movieId": ids["movieId"], "score": score}


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
