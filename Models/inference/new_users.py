"""Users who are not in the data, from the movies that they like or from a file of their ratings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from Models.checkpoint import SavedModel
from Models.inference.named import find_movies
from Models.inputs import CLOCK
from Models.sequences import NEW_USER, PaddedHistory
from utils.files import UserError, note
from utils.ratings import read_ratings


def who_likes(saved: SavedModel, movies: Sequence[str]) -> PaddedHistory:
    """The history of a user who likes these movies (ids as typed): each has the highest rating, [1, L].

    Raises:
        UserError: a movie is not in the data.
    """
    return history_of(saved, pd.DataFrame({"movie": movies}))


def with_ratings(saved: SavedModel, path: Path, encoding: str | None = None) -> tuple[PaddedHistory, bool]:
    """The history of the one user of a file of ratings, [1, L], and whether the file has times.

    Raises:
        UserError: a movie is not in the data, or the ratings are of several users, on another scale, or have times of
            another kind than the data's.
    """
    table = read_ratings(path, encoding, needed=("movie",))
    if "user" in table and table["user"].nunique() != 1:
        raise UserError(f"{path} holds {table['user'].nunique()} users: give the ratings of one.")
    if "rating" in table:
        check_scale(path, table["rating"], saved)
    if "time" in table:
        check_times(path, table["time"], saved)
    return history_of(saved, table), "time" in table


def history_of(saved: SavedModel, table: pd.DataFrame) -> PaddedHistory:
    """The history of a new user, [1, L], from a table of movies with optional ratings and times.

    Without ratings, movies get the highest. Without times, the list is requested at the time of the data's newest
    rating, and the user rated a movie every ten minutes until a minute before: each then counts as a separate choice,
    not as one of a page of movies, which says little about the next one.
    """
    stats = saved.model.stats
    if "rating" not in table:
        table = table.assign(rating=stats.scale.high)
    is_timed = "time" in table
    table = table.assign(movie=table["movie"].astype(str).str.strip())
    table = table.sort_values("time", kind="stable") if is_timed else table
    table = table.drop_duplicates("movie", keep="last")
    if not is_timed:
        before = (np.arange(1 - len(table), 1) * 600 - 60) * (stats.newest >= CLOCK)
        table = table.assign(time=stats.newest + before)
    movies = torch.tensor([find_movies(saved.ids, table["movie"].tolist())])
    rating = torch.from_numpy(stats.scale.to_model(table["rating"].to_numpy(np.float32)))[None]
    time = torch.from_numpy(table["time"].to_numpy(np.int64))[None]
    asked = time[:, -1] if is_timed else torch.tensor([stats.newest])
    return PaddedHistory(torch.tensor([NEW_USER]), movies, rating, time, torch.ones_like(movies).bool(), asked)


def check_times(path: Path, time: pd.Series, saved: SavedModel) -> None:
    """Raises UserError if one of the data and the file has clock times and the other a count."""
    newest = saved.model.stats.newest
    if newest and (newest < CLOCK) != (time.max() < CLOCK):
        raise UserError(
            f"{path} has times such as {time.max()}, but {saved.ids.dataset} such as {newest}: write both alike, "
            "or leave the times out."
        )


def check_scale(path: Path, rating: pd.Series, saved: SavedModel) -> None:
    """Print a note if a file's ratings may be on another scale than the data's.

    Raises:
        UserError: they are, as some lie outside the data's scale.
    """
    scale, low, high = saved.model.stats.scale, rating.min(), rating.max()
    words = f"{path} has ratings from {low:g} to {high:g}, but {saved.ids.dataset} from {scale.low:g} to {scale.high:g}"
    if low < scale.low or high > scale.high:
        if scale.is_constant:
            raise UserError(
                f"The model was trained on choices without ratings: leave the column of ratings out of {path}."
            )
        raise UserError(f"{words}: give ratings on that scale.")
    if high < (scale.low + scale.high) / 2:
        note(f"{words}: if they are on another scale, convert them.")
