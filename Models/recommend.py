"""Top-N recommendations: every movie scored for a chunk of users at a time, rated ones left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.checkpoint import IdMaps
from Models.Dataset import UserBatches
from Models.sequences import NEW_USER, History, PaddedHistory
from utils import distributed
from utils.files import UserError
from utils.metrics import top_n

CHUNK_CELLS = 10_000_000  # users times movies scored together, 40 MB: bounds memory, whatever the catalogue
CHUNK_USERS = 256  # bounds it for models of histories


@dataclass(frozen=True)
class Movie:
    """A recommended movie."""

    id: int | str
    title: str
    genres: str  # "Action|Comedy"
    values: dict[str, float]  # by name: "prediction" of a rating, "score" of a ranking, "cosine" of similar movies


@dataclass(frozen=True)
class Recommendations:
    """One user's top-N, best first."""

    user: int | str
    movies: list[Movie]


@dataclass(frozen=True)
class TopNRecommender:
    """How recommendations are made: with which model, and of how many movies.

    include_seen: also recommend movies that the user has rated, each scored from the user's other ratings where the
        model reads histories
    rating_model: predicts the ratings beside a ranking's scores; of the same users and movies
    """

    model: nn.Module
    ids: IdMaps
    top_n: int = 10
    include_seen: bool = False
    rating_model: nn.Module | None = None

    def for_users(self, users: Sequence[int], known: History, seen: History) -> Iterator[Recommendations]:
        """Yield the recommendations of each user in turn: the best movies, or as many as are left.

        Equal scores stand in the catalogue's order. Users are scored in chunks, so memory stays bounded; the ranks of
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
        scores = self.scores(self.model, known)  # [B, n_movies]
        if not self.include_seen:
            row = torch.arange(len(scores))[:, None].expand_as(seen.movie)
            scores[row[seen.mask], seen.movie[seen.mask]] = -torch.inf
        movies, best = top_n(scores, self.top_n)
        values = {"score" if self.model.config.task == "ranking" else "prediction": self.clipped(best, self.model)}
        if self.rating_model:
            predictions = self.scores(self.rating_model, known).gather(1, movies.clamp(min=0))
            values["prediction"] = self.clipped(predictions, self.rating_model)
        return [
            Recommendations(self.name(user), make_list(self.ids, movies[k], {n: v[k] for n, v in values.items()}))
            for k, user in enumerate(known.user.tolist())
        ]

    def scores(self, model: nn.Module, known: PaddedHistory) -> Tensor:
        """Scores of every movie on the CPU, [B, n_movies]; where histories are read, no rating scores its own movie."""
        device = next(model.parameters()).device
        known = PaddedHistory(*(column.to(device) for column in vars(known).values()))
        scores = model.score(known).cpu().clone()
        reads_histories = isinstance(model.batching, UserBatches) or bool((known.user == NEW_USER).any())
        if self.include_seen and reads_histories:
            for k in range(len(scores)):
                scores[k, known.movie[k][known.mask[k]].cpu()] = scores_of_known(model, known.row(k)).cpu()
        return scores

    @staticmethod
    def clipped(values: Tensor, model: nn.Module) -> Tensor:
        """Predicted ratings on the scale; only now, as the best would all be equal if they were clipped before."""
        if model.config.task == "ranking":
            return values
        return values.clamp(model.stats.min_rating, model.stats.max_rating)

    def name(self, user: int) -> int | str:
        return "new" if user == NEW_USER else self.ids.user_ids[user]


def scores_of_known(model: nn.Module, history: PaddedHistory) -> Tensor:
    """Of each movie of one user's history, [1, L], its score from the other ratings, [L]."""
    n = int(history.mask.sum())
    if not n:
        return history.rating.new_zeros(0)
    others, scores = history.without_each(), []
    for rows in torch.arange(n, device=history.movie.device).split(CHUNK_USERS):
        columns = (column[rows] for column in vars(others).values())
        scores.append(model.score(PaddedHistory(*columns)).gather(1, history.movie[0, rows][:, None]).squeeze(1))
    return torch.cat(scores)


@torch.inference_mode()
def similar(model: nn.Module, ids: IdMaps, movie: int, n: int) -> list[Movie]:
    """The movies whose vectors have the highest cosine with this movie's, and the cosines."""
    vectors = F.normalize(model.movie_vectors())
    cosine = (vectors @ vectors[movie])[None].cpu()
    cosine[0, movie] = -torch.inf
    movies, values = top_n(cosine, n)
    return make_list(ids, movies[0], {"cosine": values[0]})


def make_list(ids: IdMaps, movies: Tensor, values: dict[str, Tensor]) -> list[Movie]:
    """Indices of movies, -1 for none, and named values of each, [N], as movies in the data's own ids."""
    rows = zip(*(column.tolist() for column in values.values()), strict=True)
    return [
        Movie(ids.movie_ids[i], ids.titles[i], ids.genres[i], dict(zip(values, row, strict=True)))
        for i, row in zip(movies.tolist(), rows, strict=True)
        if i >= 0
    ]


def find_user(ids: IdMaps, written: str) -> int:
    """The index of a user whose id was typed; 42 and "42" are the same user, whatever the data's id type.

    Raises:
        UserError: there is no such user.
    """
    indices = {str(user): index for index, user in enumerate(ids.user_ids)}
    if written not in indices:
        kind = "numbers" if isinstance(ids.user_ids[0], int) else "strings"
        raise UserError(
            f"User {written!r} is not in {ids.dataset} (its ids are {kind} such as {ids.user_ids[0]}): "
            "for a new user, name some movies with --liked or give their ratings with --ratings."
        )
    return indices[written]


def find_movies(ids: IdMaps, written: Sequence[str]) -> list[int]:
    """The indices of movies whose ids were typed.

    Raises:
        UserError: some are not in the data; names them.
    """
    indices = {str(movie): index for index, movie in enumerate(ids.movie_ids)}
    if unknown := [movie for movie in written if movie not in indices]:
        raise UserError(f"{ids.dataset} has no movie {', '.join(unknown)}: take ids from its movies file.")
    return [indices[movie] for movie in written]


def most_popular(ids: IdMaps, known: History, seen: Tensor, n: int) -> list:
    """Ids of the movies with the most known ratings, without those that the user has seen."""
    counts = torch.bincount(known.movie, minlength=len(ids.movie_ids)).double()
    counts[seen] = -torch.inf
    return [ids.movie_ids[i] for i in top_n(counts[None], n)[0][0].tolist() if i >= 0]
