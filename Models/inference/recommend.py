"""Top-N recommendations: movies scored for chunks of users, rated ones left out; similar movies, audience, vectors."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from Models.checkpoint import IdMaps
from Models.Dataset import Model
from Models.inputs import HIGHEST, LOWEST
from Models.sequences import NEW_USER, History, PaddedHistory
from utils import distributed
from utils.lists import Movie, Recommendations
from utils.metrics import highest, top_n

CHUNK_CELLS = 10_000_000  # users times movies scored together, 40 MB: bounds memory, whatever the catalogue
CHUNK_USERS = 256  # users at most: bounds memory for models that read histories
SHORTLIST = 1000  # movies of a large catalogue that are scored exactly, if the model has rough scores to choose them


@dataclass(frozen=True)
class TopNRecommender:
    """How recommendations are made: with which model, and of how many movies.

    include_seen: also recommend movies that the user has rated, each scored from the user's other ratings if the
        model reads histories
    rating_model: predicts ratings to show next to a ranking's scores; for the same users and movies
    allowed: the movies that may be recommended, bool [n_movies]; None: all
    request_time: when lists are requested, in seconds since 1970; for users with later ratings, at the latest of them
    """

    model: Model
    ids: IdMaps
    top_n: int = 10
    include_seen: bool = False
    rating_model: Model | None = None
    allowed: Tensor | None = None
    request_time: int = 0

    def for_users(self, users: Sequence[int], known: History, seen: History) -> Iterator[Recommendations]:
        """Yield the recommendations of each user in turn: the best movies, or as many as are left.

        Equal scores are in the catalogue's order. Users are scored in chunks, so memory stays bounded; the ranks of
        `distributed` take chunks in turn, and each yields all recommendations.

        Args:
            users: indices of users
            known: the ratings that they are scored from
            seen: the ratings whose movies are left out
        """
        n_ranks = distributed.world_size()
        size = max(1, min(CHUNK_USERS, CHUNK_CELLS // len(self.ids.movie_ids), -(-len(users) // n_ranks)))
        for first in range(0, len(users), size * n_ranks):
            start = first + size * distributed.rank()
            mine = torch.tensor(users[start : start + size], dtype=torch.int64)
            made = self.for_histories(known.pad(mine), seen.pad(mine)) if len(mine) else []
            for recommendations in distributed.all_gather(made):
                yield from recommendations

    @torch.inference_mode()
    def for_histories(self, known: PaddedHistory, seen: PaddedHistory) -> list[Recommendations]:
        """The recommendations of users with these histories, all scored together."""
        scores, candidates = self.candidates(known, seen)
        places, best = top_n(scores, self.top_n)
        movies = places if candidates is None else candidates.gather(1, places.clamp(min=0)).where(places >= 0, -1)
        values = {"score" if self.model.config.task == "ranking" else "prediction": self.clipped(best, self.model)}
        if self.rating_model:
            predictions = self.scores(self.rating_model, known).gather(1, movies.clamp(min=0))
            values["prediction"] = self.clipped(predictions, self.rating_model)
        return [
            Recommendations(self.name(user), make_list(self.ids, movies[k], {n: v[k] for n, v in values.items()}))
            for k, user in enumerate(known.user.tolist())
        ]

    def candidates(self, known: PaddedHistory, seen: PaddedHistory) -> tuple[Tensor, Tensor | None]:
        """Movies and their scores, -inf for those that are not to be recommended.

        Returns:
            scores [B, K], and their movies, int64 [B, K] ascending, or None for all; in a large catalogue, those with
            the best rough scores, if the model has any
        """
        n = max(SHORTLIST, 10 * self.top_n)
        if not hasattr(self.model, "rough_score") or len(self.ids.movie_ids) <= 4 * n or self.include_seen:
            return self.leave_out(self.scores(self.model, known), seen), None
        known = on_device_of(self.model, asked_at(known, self.request_time))
        rough = self.leave_out(self.model.rough_score(known).cpu(), seen)
        movies = highest(rough, n)
        exact = self.model.score(known, movies.to(known.movie.device)).cpu()
        return exact.masked_fill(rough.gather(1, movies) == -torch.inf, -torch.inf), movies

    def scores(self, model: Model, known: PaddedHistory) -> Tensor:
        """Scores of every movie, on the CPU, [B, n_movies]; `include_seen`: rated ones from the other ratings."""
        known = on_device_of(model, asked_at(known, self.request_time))
        scores = model.score(known).cpu().clone()
        if self.include_seen and model.reads_histories:
            for k in range(len(scores)):
                scores[k, known.movie[k][known.mask[k]].cpu()] = scores_of_known(model, known.row(k)).cpu()
        return scores

    def leave_out(self, scores: Tensor, seen: PaddedHistory) -> Tensor:
        """The scores, [B, n_movies], set in place to -inf where a movie is not to be recommended to that user."""
        if not self.include_seen:
            row = torch.arange(len(scores))[:, None].expand_as(seen.movie)
            scores[row[seen.mask], seen.movie[seen.mask]] = -torch.inf
        if self.allowed is not None:
            scores[:, ~self.allowed] = -torch.inf
        return scores

    def most_popular(self, known: History, seen: PaddedHistory) -> list:
        """Ids of the movies with the most known ratings of those that could be recommended to one user, `seen` [1, L].

        Equally popular movies are in the catalogue's order.
        """
        counts = torch.bincount(known.movie, minlength=len(self.ids.movie_ids)).double()
        movies, _ = top_n(self.leave_out(counts[None], seen), self.top_n)
        return [self.ids.movie_ids[i] for i in movies[0].tolist() if i >= 0]

    @staticmethod
    def clipped(values: Tensor, model: Model) -> Tensor:
        """Predicted ratings, clipped to the scale; only after ranking, as earlier clipping would tie the best ones."""
        if model.config.task == "ranking":
            return values
        return model.stats.scale.from_model(values.clamp(LOWEST, HIGHEST))

    def name(self, user: int) -> int | str:
        return "new" if user == NEW_USER else self.ids.user_ids[user]


def asked_at(history: PaddedHistory, time: int) -> PaddedHistory:
    """The history with requests at this time or, for users with later ratings, at the latest one."""
    return dataclasses.replace(history, request_time=history.request_time.clamp(min=time))


def on_device_of(model: Model, history: PaddedHistory) -> PaddedHistory:
    """The history on the model's device."""
    device = next(model.parameters()).device
    return PaddedHistory(*(column.to(device) for column in vars(history).values()))


def scores_of_known(model: Model, history: PaddedHistory) -> Tensor:
    """The score of each movie of one user's history, [1, L], from the other ratings, [L]."""
    n = int(history.mask.sum())
    if not n:
        return history.rating.new_zeros(0)
    others, scores = history.without_each(), []
    for rows in torch.arange(n, device=history.movie.device).split(CHUNK_USERS):
        scores.append(model.score(others.rows(rows)).gather(1, history.movie[0, rows][:, None]).squeeze(1))
    return torch.cat(scores)


@torch.inference_mode()
def similar(model: Model, ids: IdMaps, movie: int, n: int, allowed: Tensor | None = None) -> list[Movie]:
    """The n allowed movies whose vectors have the highest cosines with this movie's, and the cosines."""
    vectors = F.normalize(model.movie_vectors())
    cosine = (vectors @ vectors[movie])[None].cpu()
    cosine[0, movie] = -torch.inf
    if allowed is not None:
        cosine[:, ~allowed] = -torch.inf
    movies, values = top_n(cosine, n)
    return make_list(ids, movies[0], {"cosine": values[0]})


@torch.inference_mode()
def audience(recommender: TopNRecommender, movie: int, known: History, seen: History) -> list[tuple[int | str, float]]:
    """The users who would like a movie most and have not rated it, best first, and how much.

    That is the predicted rating or, for a model that ranks, the movie's probability among all that the user has not
    rated: the softmax of their scores.
    """
    n_users, model = len(recommender.ids.user_ids), recommender.model
    size = max(1, min(CHUNK_USERS, CHUNK_CELLS // len(recommender.ids.movie_ids)))
    found = []
    for users in torch.arange(n_users).split(size):
        scores = recommender.leave_out(recommender.scores(model, known.pad(users)), seen.pad(users))
        values = scores.softmax(1) if model.config.task == "ranking" else scores
        found.append(values[:, movie].masked_fill(scores[:, movie] == -torch.inf, -torch.inf))  # seen
    values = torch.cat(found)
    users, best = top_n(values[None], recommender.top_n)
    best = recommender.clipped(best, model)[0].tolist()
    return [(recommender.name(user), value) for user, value in zip(users[0].tolist(), best, strict=True) if user >= 0]


def make_list(ids: IdMaps, movies: Tensor, values: dict[str, Tensor]) -> list[Movie]:
    """Indices of movies, -1 for none, and named values of each, [N], as movies in the data's own ids."""
    rows, first_new = zip(*(column.tolist() for column in values.values()), strict=True), len(ids.movie_ids) - ids.n_new
    return [
        Movie(ids.movie_ids[i], ids.titles[i], ids.genres[i], dict(zip(values, row, strict=True)), i >= first_new)
        for i, row in zip(movies.tolist(), rows, strict=True)
        if i >= 0
    ]


@torch.inference_mode()
def vectors(model: Model, ids: IdMaps, known: History, request_time: int = 0) -> dict[str, np.ndarray]:
    """The ids and vectors of all movies and, if the model has user vectors, of all users, from these ratings.

    Args:
        request_time: as in `TopNRecommender`

    Returns:
        movie_ids [n_movies], movie_vectors [n_movies, D], user_ids [n_users] and user_vectors [n_users, D']: ids are
        int64 or strings, vectors float32
    """
    found = {"movie_ids": np.array(ids.movie_ids), "movie_vectors": model.movie_vectors().detach().cpu().numpy()}
    if hasattr(model, "user_vectors") and ids.user_ids:
        chunks = torch.arange(len(ids.user_ids)).split(CHUNK_USERS)
        padded = (on_device_of(model, asked_at(known.pad(users), request_time)) for users in chunks)
        of_users = torch.cat([model.user_vectors(history).cpu() for history in padded])
        found |= {"user_ids": np.array(ids.user_ids), "user_vectors": of_users.numpy()}
    return found
