#!/usr/bin/env python3
"""Recommend movies to one user, or to all, from a finished training.

    python generate_recommendation.py
    python generate_recommendation.py --user 42 --top-n 5 --format json
    python generate_recommendation.py --liked 1,3114,2355          # a new user who likes these movies
    python generate_recommendation.py --ratings mine.csv           # or rated them: userId,movieId,rating,timestamp
    python generate_recommendation.py --similar-to 260
    python generate_recommendation.py --run runs/ranking --predictions-from runs/ratings      # predictions beside it
    python generate_recommendation.py --all-users --format csv --output top10.csv
    torchrun --nproc-per-node 2 -- generate_recommendation.py --all-users --output top10.csv    # shared by processes

Recommendations are made from all ratings of a user in the data set, whether they were training, validation or test
ratings. Movies that the user has rated are left out, unless --include-seen; every other movie of the catalogue can
appear, whether somebody has rated it or not. The last line is `Top 10 recommended movie IDs for user 1: [...]`.
"""

import csv
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TextIO

import numpy as np
import pandas as pd
import torch
import tyro
from torch import nn

from Models.checkpoint import SavedModel, load_model
from Models.inputs import PositiveInt
from Models.recommend import Recommendations, TopNRecommender, find_movies, find_user, most_popular, similar
from Models.sequences import NEW_USER, PaddedHistory
from utils import cli, distributed
from utils.cli import display_path
from utils.config import Device, OptionalFileName, OptionalFolder, parse
from utils.files import UserError, atomic_write
from utils.ratings import read_ratings
from utils.runs import finished_run

Format = Literal["text", "ids", "json", "csv"]
MovieIds = Annotated[str | None, tyro.conf.arg(metavar="ID,ID,...", help_behavior_hint="(optional)")]
MovieId = Annotated[str | None, tyro.conf.arg(metavar="ID", help_behavior_hint="(optional)")]


@dataclass(frozen=True)
class Settings:
    run: OptionalFolder = None
    """folder of a finished training (default: the newest in runs/)"""
    user: Annotated[str, tyro.conf.arg(metavar="ID")] = "1"
    """id of the user, as in the data"""
    liked: MovieIds = None
    """recommend to a new user who likes these movies"""
    ratings: OptionalFileName = None
    """recommend to a new user with the ratings in this file"""
    similar_to: MovieId = None
    """list the movies most similar to this one"""
    predictions_from: OptionalFolder = None
    """show the ratings that the model of this run predicts beside a ranking"""
    known: Literal["all", "train"] = "all"
    """the ratings of a user to recommend from: all in the data set, or those that the model was trained on"""
    all_users: bool = False
    """recommend to every user instead of one"""
    top_n: PositiveInt = 10
    """how many movies"""
    include_seen: bool = False
    """also recommend movies that the user has rated"""
    format: Format = "text"
    """a table, movie ids alone, one JSON object per user or CSV"""
    output: OptionalFileName = None
    """write to this file instead of the screen"""
    device: Device = "auto"


def main() -> None:
    settings = parse(Settings, __doc__)
    with distributed.process_group(cli.resolve_device(settings.device)) as device:
        generate(settings, device)


def generate(settings: Settings, device: torch.device) -> None:
    """The recommendations that were asked for, made by all ranks and written by rank 0."""
    check_request(settings)
    run = finished_run(settings.run)
    saved = load_model(run / "best.pt", device)
    if settings.similar_to is not None:
        (movie,) = find_movies(saved.ids, [settings.similar_to])
        movies = similar(saved.model, saved.ids, movie, settings.top_n)
        found = Recommendations(saved.ids.movie_ids[movie], movies)
        show(settings, ["cosine"], "movie IDs most similar to movie", [found], 1)
        return
    ranking = saved.model.config.task == "ranking"
    rating_model = load_rating_model(settings, saved, device)
    recommender = TopNRecommender(saved.model, saved.ids, settings.top_n, settings.include_seen, rating_model)
    history = new_user(settings, saved)
    if history is not None:
        users, seen = [NEW_USER], history.movie[0]
        found = recommender.for_histories(history, history)
    else:
        users = range(len(saved.ids.user_ids)) if settings.all_users else [find_user(saved.ids, settings.user)]
        every = saved.known.history
        first = every.pad(torch.tensor(users[:1]))
        seen = first.movie[0][first.mask[0]]
        known = every if settings.known == "all" else saved.known.training()
        found = recommender.for_users(users, known, seen=every)
    columns = ["score"] * ranking + ["prediction"] * (not ranking or rating_model is not None)
    last, n_short = show(settings, columns, "recommended movie IDs for user", found, len(users))
    if distributed.rank():
        return
    if len(users) == 1:
        popular = most_popular(saved.ids, saved.known.history, seen, settings.top_n)
        print(about(ranking, last, popular), file=sys.stderr)
    if note := about_training(saved, run):
        print(note, file=sys.stderr)
    if n_short:
        print(f"For {n_short:,} of {len(users):,} users fewer than {settings.top_n} movies are left.", file=sys.stderr)
    if settings.output:
        print(f"Wrote the recommendations for {len(users):,} users to {display_path(settings.output)}.")


def check_request(settings: Settings) -> None:
    """Raises UserError where several kinds of recommendations are asked for at once."""
    given = [name for name in ("liked", "ratings", "similar_to") if getattr(settings, name) is not None]
    if settings.all_users:
        given.insert(0, "all_users")
    if len(given) > 1:
        words = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(f"{words} ask for different recommendations: give one of them.")


def new_user(settings: Settings, saved: SavedModel) -> PaddedHistory | None:
    """What --liked or --ratings tell of a user who is not in the data; liked movies count as the highest rating.

    Raises:
        UserError: a movie is not in the data, or the ratings are of several users.
    """
    stats = saved.model.stats
    if settings.liked is not None:
        movies = [word.strip() for word in settings.liked.split(",")]
        table = pd.DataFrame({"movie": movies, "rating": stats.max_rating})
    elif settings.ratings is not None:
        table = read_ratings(settings.ratings)
        if table["user"].nunique() != 1:
            raise UserError(f"{settings.ratings} holds {table['user'].nunique()} users: give the ratings of one.")
        if table["rating"].max() > stats.max_rating:
            raise UserError(
                f"{settings.ratings} holds a rating of {table['rating'].max():g}, but the highest in "
                f"{saved.ids.dataset} is {stats.max_rating:g}: give ratings on that scale."
            )
    else:
        return None
    table = table.sort_values("time", kind="stable") if "time" in table else table.assign(time=stats.newest)
    table = table.drop_duplicates("movie", keep="last")
    movies = torch.tensor([find_movies(saved.ids, table["movie"].astype(str).tolist())])
    rating = torch.from_numpy(table["rating"].to_numpy(np.float32))[None]
    time = torch.from_numpy(table["time"].to_numpy(np.int64))[None]
    return PaddedHistory(torch.tensor([NEW_USER]), movies, rating, time, torch.ones_like(movies).bool())


def load_rating_model(settings: Settings, saved: SavedModel, device: torch.device) -> nn.Module | None:
    """The model of --predictions-from.

    Raises:
        UserError: there is no ranking to show its predictions beside, or it belongs to other data.
    """
    if settings.predictions_from is None:
        return None
    run = finished_run(settings.predictions_from)
    other = load_model(run / "best.pt", device)
    if saved.model.config.task != "ranking" or other.model.config.task != "rating":
        raise UserError("--predictions-from takes a run that predicts ratings, beside a --run that ranks.")
    if any(getattr(other.ids, name) != getattr(saved.ids, name) for name in ("user_ids", "movie_ids", "titles")):
        raise UserError(f"{run} was trained on other users or movies than --run: train both on the same data.")
    return other.model


def show(
    settings: Settings, columns: list[str], words: str, found: Iterable[Recommendations], n: int
) -> tuple[Recommendations, int]:
    """Write recommendations to the screen or --output; returns the last ones and how many are shorter than wanted."""
    n_short = 0
    with opened(settings.output) as file:
        write = WRITERS[settings.format](file, columns, words, one_user=n == 1)
        for one in found:
            write(one)
            n_short += len(one.movies) < settings.top_n
    return one, n_short


def about(ranking: bool, found: Recommendations, popular: list) -> str:
    """What the model learned, and how its recommendations compare with the most popular movies."""
    common = len({movie.id for movie in found.movies} & set(popular))
    words = f"overlap with the {len(popular)} most popular movies that are left: {common} of {len(found.movies)}."
    if ranking:
        return f"The model learned to rank; {words}"
    return (
        f"The model learned to predict ratings, not which movies are chosen; {words} "
        "For movies that the user would choose: python train.py --preset autoencoder."
    )


def about_training(saved: SavedModel, run: Path) -> str | None:
    """A note where the model was trained on a part of the ratings; None where it was trained on all."""
    n, n_trained = len(saved.known.part), len(saved.known.training().movie)
    if n == n_trained:
        return None
    return (
        f"The model was trained on {n_trained:,} of {n:,} ratings; for recommending, "
        f"python train.py --final {shlex.quote(display_path(run))} trains it on all."
    )


@contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """The screen, or a file that appears only once it is complete; of several ranks, rank 0 alone writes it."""
    if output is None or distributed.rank():
        yield sys.stdout
        return
    with atomic_write(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


# --- formats: each makes a function that writes one user's recommendations --------------------------

Writer = Callable[[Recommendations], None]


def text_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """The original's line; above it, for one user, a table."""

    def write(found: Recommendations) -> None:
        if one_user:
            file.write(table(found, columns))
        ids = [movie.id for movie in found.movies]
        file.write(f"Top {len(ids)} {words} {found.user}: {ids}\n")

    return write


def table(found: Recommendations, columns: list[str]) -> str:
    width = max([len("title"), *(len(movie.title) for movie in found.movies)])
    lines = [f"rank      id  {'title':{width}}  {'  '.join(columns)}  genres"]
    for rank, movie in enumerate(found.movies, start=1):
        genres = movie.genres.replace("|", ", ")
        values = "  ".join(f"{movie.values[name]:{len(name)}.2f}" for name in columns)
        lines.append(f"{rank:4}  {movie.id!s:>6}  {movie.title:{width}}  {values}  {genres}".rstrip())
    return "\n".join(lines) + "\n\n"


def ids_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """A line of movie ids, after the user's id where there are several users."""

    def write(found: Recommendations) -> None:
        ids = [movie.id for movie in found.movies]
        print(*([] if one_user else [found.user]), *ids, file=file)

    return write


def json_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """One JSON object per line."""

    def write(found: Recommendations) -> None:
        movies = [{"id": m.id, "title": m.title, "genres": m.genres} | m.values for m in found.movies]
        print(json.dumps({"user": found.user, "movies": movies}, ensure_ascii=False), file=file)

    return write


def csv_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """One row per movie, after a header."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["userId", "rank", "movieId", "title", "genres", *columns])

    def write(found: Recommendations) -> None:
        for rank, movie in enumerate(found.movies, start=1):
            values = [f"{movie.values[name]:.4f}" for name in columns]
            rows.writerow([found.user, rank, movie.id, movie.title, movie.genres, *values])

    return write


WRITERS = {"text": text_writer, "ids": ids_writer, "json": json_writer, "csv": csv_writer}

if __name__ == "__main__":
    cli.run(main, prints_results=True)
