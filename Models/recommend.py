"""Top-N lists: every movie scored for a chunk of users at a time, rated ones left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from Models.checkpoint import Catalogue
from utils.files import UserError

CHUNK_CELLS = 250_000  # users times movies scored together: bounds memory to some hundred MB, whatever the catalogue


@dataclass(frozen=True)
class Movie:
    """A recommended movie."""

    id: int | str
    title: str
    genres: str  # "Action|Comedy"
    score: float  # predicted stars, or how likely the movie is chosen, as the model learned


@dataclass(frozen=True)
class UserList:
    """One user's recommendations, best first."""

    user: int | str
    movies: list[Movie]


def find_user(catalogue: Catalogue, written: str) -> int:
    """The position of a user whose id was typed; 42 and "42" are the same user, whatever the data's id type.

    Raises:
        UserError: there is no such user.
    """
    positions = {str(user): position for position, user in enumerate(catalogue.user_ids)}
    if written not in positions:
        kind = "numbers" if isinstance(catalogue.user_ids[0], int) else "strings"
        raise UserError(
            f"User {written!r} is not in {catalogue.dataset} (its ids are {kind} such as {catalogue.user_ids[0]}): "
            "for a new user, add some ratings of theirs to the data's ratings file and run python train.py again."
        )
    return positions[written]


@torch.inference_mode()
def recommend(
    model: nn.Module, catalogue: Catalogue, users: Sequence[int], top_n: int, include_seen: bool = False
) -> Iterator[UserList]:
    """Yield the list of each user in turn: the `top_n` movies of the highest scores, or as many as are left.

    Equal predictions stand in the catalogue's order. Users are scored in chunks, so memory stays bounded.

    Args:
        users: positions of users
        include_seen: also recommend movies that the user has rated
    """
    device = next(model.parameters()).device
    chunk = max(1, CHUNK_CELLS // len(catalogue.movie_ids))
    for start in range(0, len(users), chunk):
        some = users[start : start + chunk]
        scores = model.score(torch.tensor(some, device=device))  # [U, M]
        if not include_seen:
            for row, user in enumerate(some):
                scores[row, catalogue.seen(user).to(device)] = -torch.inf
        ordered, movies = torch.sort(scores, dim=1, descending=True, stable=True)
        for row, user in enumerate(some):
            left = min(top_n, int((ordered[row] > -torch.inf).sum()))
            found = ordered[row, :left]
            if model.config.objective == "rating":  # on the scale only now: clipped before, the best would all be equal
                found = found.clamp(model.sizes.low, model.sizes.high)
            yield make_list(catalogue, user, movies[row, :left].tolist(), found.tolist())


def most_popular(catalogue: Catalogue, user: int, top_n: int) -> list:
    """Ids of the movies with the most ratings, without those that the user has rated."""
    counts = torch.bincount(catalogue.seen_movies.long(), minlength=len(catalogue.movie_ids))
    counts[catalogue.seen(user)] = -1
    return [catalogue.movie_ids[i] for i in counts.sort(descending=True, stable=True).indices[:top_n].tolist()]


def make_list(catalogue: Catalogue, user: int, movies: list[int], scores: list[float]) -> UserList:
    """Positions into the user's own ids, titles and genres."""
    c = catalogue
    found = [Movie(c.movie_ids[i], c.titles[i], c.genres[i], s) for i, s in zip(movies, scores, strict=True)]
    return UserList(c.user_ids[user], found)
