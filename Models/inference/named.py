"""Users, movies and filters as they were typed: find them in the data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from Models.checkpoint import IdMaps
from utils.files import UserError


def find_users(ids: IdMaps, written: Sequence[str]) -> list[int]:
    """The indices of users whose ids were typed; 42 and "42" are the same user, whatever the data's id type.

    Raises:
        UserError: some are not in the data; the message names the first of them.
    """
    indices = {str(user): index for index, user in enumerate(ids.user_ids)}
    if unknown := [user for user in written if user not in indices]:
        kind = "numbers" if isinstance(ids.user_ids[0], int) else "strings"
        remedy = "for a new user, name some movies with --liked or give their ratings with --ratings"
        if "," in unknown[0]:
            remedy = f"for several users, --users {unknown[0]}"
        raise UserError(
            f"{'Users' if len(unknown) > 1 else 'User'} {first_of([repr(user) for user in unknown])} "
            f"{'have' if len(unknown) > 1 else 'has'} no ratings in {ids.dataset} (its ids are {kind} such as "
            f"{ids.user_ids[0]}): {remedy}."
        )
    return [indices[user] for user in written]


def find_movies(ids: IdMaps, written: Sequence[str]) -> list[int]:
    """The indices of movies whose ids were typed.

    Raises:
        UserError: some are not in the data; the message names the first of them.
    """
    indices = {str(movie): index for index, movie in enumerate(ids.movie_ids)}
    if unknown := [movie for movie in written if movie not in indices]:
        raise UserError(f"{ids.dataset} has no movie {first_of(unknown)}: take ids from its movies file.")
    return [indices[movie] for movie in written]


def first_of(values: Sequence[str], n: int = 5) -> str:
    """The first n values as text."""
    return ", ".join([value[:40] for value in values[:n]] + ["..."] * (len(values) > n))


def allowed_movies(
    ids: IdMaps,
    genres: Sequence[str] | None = None,
    years: tuple[int, int] | None = None,
    exclude: Sequence[str] | None = None,
    candidates: Sequence[str] | None = None,
) -> Tensor | None:
    """The movies that pass every filter that is given, bool [n_movies]; None without any filter.

    Args:
        genres: a movie needs at least one of them; case is ignored
        years: the first and the last year of release; movies without a known year do not pass
        exclude: ids of movies that do not pass
        candidates: ids of the only movies that pass

    Raises:
        UserError: a movie or genre is not in the data, the data has no years, or no movie passes.
    """
    masks = []
    if genres is not None:
        masks.append(of_genres(ids, genres))
    if years is not None:
        masks.append(of_years(ids, *years))
    if exclude is not None:
        masks.append(~of_ids(ids, exclude))
    if candidates is not None:
        masks.append(of_ids(ids, candidates))
    if not masks:
        return None
    allowed = torch.stack(masks).all(0)
    if not allowed.any():
        raise UserError(
            f"No movie of {ids.dataset} passes the filters: change --genres, --years, --exclude or --candidates."
        )
    return allowed


def of_genres(ids: IdMaps, wanted: Sequence[str]) -> Tensor:
    """The movies with one of these genres, bool [n_movies]."""
    of_movie = [genres.split("|") if genres else [] for genres in ids.genres]
    known = {genre.casefold(): genre for genres in of_movie for genre in genres}
    if not known:
        raise UserError(f"{ids.dataset} has no genres: leave out --genres.")
    if unknown := [genre for genre in wanted if genre.casefold() not in known]:
        names = ", ".join(sorted(known.values()))
        raise UserError(f"{ids.dataset} has no genre {first_of(unknown)}: choose from {names}.")
    folded = {genre.casefold() for genre in wanted}
    return torch.tensor([any(genre.casefold() in folded for genre in genres) for genres in of_movie])


def of_years(ids: IdMaps, first: int, last: int) -> Tensor:
    """The movies from these years, bool [n_movies]."""
    year = torch.tensor(ids.years)
    if not year.any():
        raise UserError(f"{ids.dataset} has no release years: leave out --years.")
    return (year > 0) & (year >= first) & (year <= last)


def of_ids(ids: IdMaps, written: Sequence[str]) -> Tensor:
    """The movies with these ids, bool [n_movies]."""
    mask = torch.zeros(len(ids.movie_ids), dtype=torch.bool)
    mask[find_movies(ids, written)] = True
    return mask
