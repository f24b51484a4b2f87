"""Top-N lists: every movie scored for a chunk of users at a time, rated ones left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models import parallel
from Models.checkpoint import Catalogue
from Models.histories import Histories, Past
from utils.files import UserError

CHUNK_CELLS = 10_000_000  # users times movies scored together, 40 MB: bounds memory, whatever the catalogue
CHUNK_USERS = 256  # bounds it for models of histories


@dataclass(frozen=True)
class Movie:
    """A recommended movie."""

    id: int | str
    title: str
    genres: str  # "Action|Comedy"
    values: dict[str, float]  # by name: "stars" as predicted, "score" of a ranking, "cosine" of similar movies


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


def find_movies(catalogue: Catalogue, written: Sequence[str]) -> list[int]:
    """The positions of movies whose ids were typed.

    Raises:
        UserError: some are not in the data; names them.
    """
    positions = {str(movie): position for position, movie in enumerate(catalogue.movie_ids)}
    if unknown := [movie for movie in written if movie not in positions]:
        raise UserError(f"{catalogue.dataset} has no movie {', '.join(unknown)}: take ids from its movies file.")
    return [positions[movie] for movie in written]


@torch.inference_mode()
def recommend_to_new(
    model: nn.Module,
    catalogue: Catalogue,
    name: str,
    past: Past,
    top_n: int,
    include_seen: bool = False,
    stars_model: nn.Module | None = None,
) -> UserList:
    """The list of a user who was not in training, of whom these ratings, [1, L], are known."""
    scores = model.score_past(past)[0]
    stars = stars_model.score_past(past)[0] if stars_model else None
    if include_seen:
        scores[past.movie[0]] = scores_of_known(model, past)
        if stars is not None:
            stars[past.movie[0]] = scores_of_known(stars_model, past)
    else:
        scores[past.movie[0]] = -torch.inf
    return best(model, catalogue, name, scores, stars, top_n)


@torch.inference_mode()
def similar(model: nn.Module, catalogue: Catalogue, movie: int, top_n: int) -> list[Movie]:
    """The movies whose vectors have the highest cosine with this movie's, and the cosines."""
    vectors = F.normalize(model.movie_vectors())
    cosine = vectors @ vectors[movie]
    cosine[movie] = -torch.inf
    movies = top(cosine, top_n)
    return make_list(catalogue, movies.tolist(), {"cosine": cosine[movies].tolist()})


@torch.inference_mode()
def recommend(
    model: nn.Module,
    catalogue: Catalogue,
    users: Sequence[int],
    top_n: int,
    include_seen: bool = False,
    stars_model: nn.Module | None = None,
) -> Iterator[UserList]:
    """Yield the list of each user in turn: the `top_n` movies of the highest scores, or as many as are left.

    Equal predictions stand in the catalogue's order. Users are scored in chunks, so memory stays bounded; the ranks of
    `parallel` take chunks in turn, and each yields all lists.

    Args:
        users: positions of users
        include_seen: also recommend movies that the user has rated
        stars_model: predicts the stars beside a ranking's scores; of the same catalogue
    """
    size = max(1, min(CHUNK_USERS, CHUNK_CELLS // len(catalogue.movie_ids), -(-len(users) // parallel.world())))
    for first in range(0, len(users), size * parallel.world()):
        start = first + size * parallel.rank()
        mine = users[start : start + size]
        for lists in parallel.gathered(lists_of(model, catalogue, mine, top_n, include_seen, stars_model)):
            yield from lists


def lists_of(
    model: nn.Module,
    catalogue: Catalogue,
    users: Sequence[int],
    top_n: int,
    include_seen: bool,
    stars_model: nn.Module | None,
) -> list[UserList]:
    """The lists of these users, all scored together."""
    if not users:
        return []
    device = next(model.parameters()).device
    scores = model.score(torch.tensor(users, device=device))  # [U, M]
    stars = stars_model.score(torch.tensor(users, device=device)) if stars_model else [None] * len(users)
    for row, user in enumerate(users):
        if not include_seen:
            scores[row, catalogue.seen(user).to(device)] = -torch.inf
            continue
        for one, of_all in ((model, scores), (stars_model, stars)):
            if isinstance(one, Histories):
                past = one.past(torch.tensor([user], device=device))
                of_all[row, past.movie[past.real]] = scores_of_known(one, past)
    names = [catalogue.user_ids[user] for user in users]
    return [best(model, catalogue, *row, top_n) for row in zip(names, scores, stars, strict=True)]


def scores_of_known(model: nn.Module, past: Past) -> Tensor:
    """Of each movie of one user's past, [1, L], its score from the other ratings: a rating must not predict itself."""
    n = int(past.count())
    scores = [model.score_past(past.without(k))[0, past.movie[0, k]] for k in range(n)]
    return torch.stack(scores) if n else past.stars.new_zeros(0)


def best(
    model: nn.Module, catalogue: Catalogue, user: int | str, scores: Tensor, stars: Tensor | None, top_n: int
) -> UserList:
    """A user's list from the scores of every movie, [n_movies], -inf for those left out.

    stars: of every movie, [n_movies], where they are to be shown beside a ranking
    """
    movies = top(scores, top_n)
    values = {"score": scores[movies].tolist()}
    if model.config.objective == "rating":
        values, stars = {}, scores
    if stars is not None:  # on the scale only now: clipped before, the best would all be equal
        values["stars"] = stars[movies].clamp(model.sizes.low, model.sizes.high).tolist()
    return UserList(user, make_list(catalogue, movies.tolist(), values))


def top(scores: Tensor, n: int) -> Tensor:
    """Positions of the n highest scores above -inf, or as many as there are; equal ones in their order."""
    least = scores.topk(min(n, len(scores))).values[-1]
    among = ((scores >= least) & (scores > -torch.inf)).nonzero().squeeze(1)  # few: much quicker to sort than all
    return among[scores[among].argsort(descending=True, stable=True)][:n]


def most_popular(catalogue: Catalogue, seen: Tensor, top_n: int) -> list:
    """Ids of the movies with the most ratings, without those that the user has seen."""
    counts = torch.bincount(catalogue.seen_movies.long(), minlength=len(catalogue.movie_ids))
    counts[seen] = -1
    return [catalogue.movie_ids[i] for i in counts.sort(descending=True, stable=True).indices[:top_n].tolist()]


def make_list(catalogue: Catalogue, movies: list[int], values: dict[str, list[float]]) -> list[Movie]:
    """Positions into the user's own ids, titles and genres, each with its values."""
    c = catalogue
    return [
        Movie(c.movie_ids[i], c.titles[i], c.genres[i], {name: of_all[k] for name, of_all in values.items()})
        for k, i in enumerate(movies)
    ]
