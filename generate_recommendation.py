#!/usr/bin/env python3
"""Recommend movies to one user, or to all, from a finished training.

    python generate_recommendation.py
    python generate_recommendation.py --user 42 --top-n 5 --format json
    python generate_recommendation.py --liked 1,3114,2355          # a new user who likes these movies
    python generate_recommendation.py --ratings mine.csv           # or rated them: userId,movieId,rating,timestamp
    python generate_recommendation.py --similar-to 260
    python generate_recommendation.py --run runs/ranking --stars-from runs/stars      # a list, and stars beside it
    python generate_recommendation.py --all-users --format csv --output top10.csv
    torchrun --nproc-per-node 2 -- generate_recommendation.py --all-users --output top10.csv    # shared by processes

Movies the user has rated are left out, unless --include-seen. Every other movie of the catalogue can appear,
never-rated ones too. The last line is `Top 10 recommended movie IDs for user 1: [...]`.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
import pandas as pd
import torch
from torch import nn

from Models import parallel
from Models.checkpoint import Catalogue, read_checkpoint, rebuild
from Models.histories import Past
from Models.recommend import UserList, find_movies, find_user, most_popular, recommend, recommend_to_new, similar
from utils import cli
from utils.cli import Device, flag, positive
from utils.files import UserError, write_aside
from utils.ratings import read_ratings
from utils.runs import finished_run

NEW_USER = "new"
Format = Literal["text", "ids", "json", "csv"]


@dataclass(frozen=True)
class Settings:
    run: Path | None = cli.run_flag("folder of a finished training (default: the newest in runs/)")
    user: str = flag("1", "id of the user, as in the data", metavar="ID")
    liked: str | None = flag(None, "recommend to a new user who likes these movies", metavar="ID,ID,...")
    ratings: Path | None = flag(None, "recommend to a new user with the ratings in this file", metavar="FILE")
    similar_to: str | None = flag(None, "list the movies most similar to this one", metavar="ID")
    stars_from: Path | None = flag(None, "show the stars that this run predicts beside a ranking", metavar="DIR")
    all_users: bool = flag(False, "recommend to every user instead of one")
    top_n: int = flag(10, "how many movies", type=positive)
    include_seen: bool = flag(False, "also recommend movies that the user has rated")
    format: Format = flag("text", "a table, movie ids alone, a JSON object a user or CSV")
    output: Path | None = flag(None, "write to this file instead of the screen", metavar="FILE")
    device: Device = cli.device_flag()


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    with parallel.ranks(cli.resolve_device(settings.device)) as device:
        make_lists(settings, device)


def make_lists(settings: Settings, device: torch.device) -> None:
    """The lists that were asked for, made by all ranks and written by rank 0."""
    given = [name for name in ("all_users", "liked", "ratings", "similar_to") if getattr(settings, name)]
    if len(given) > 1:
        words = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(f"{words} ask for different lists: give one of them.")
    run = finished_run(settings.run)
    model, catalogue = rebuild(read_checkpoint(run / "best.pt"), device)
    if settings.similar_to:
        (movie,) = find_movies(catalogue, [settings.similar_to])
        found = UserList(catalogue.movie_ids[movie], similar(model, catalogue, movie, settings.top_n))
        show(settings, ["cosine"], "movie IDs most similar to movie", [found], 1)
        return
    ranking = model.config.objective == "ranking"
    stars_model = load_stars(settings, catalogue, ranking, device)
    options = settings.top_n, settings.include_seen, stars_model
    past = new_user(settings, model, catalogue)
    if past is not None:
        users, seen = [NEW_USER], past.movie[0].cpu()
        found = [recommend_to_new(model, catalogue, NEW_USER, past, *options)]
    else:
        users = range(len(catalogue.user_ids)) if settings.all_users else [find_user(catalogue, settings.user)]
        seen = catalogue.seen(users[0])
        found = recommend(model, catalogue, users, *options)
    columns = ["score"] * ranking + ["stars"] * (not ranking or stars_model is not None)
    last, n_short = show(settings, columns, "recommended movie IDs for user", found, len(users))
    if parallel.rank():
        return
    if len(users) == 1:
        print(about(ranking, last, most_popular(catalogue, seen, settings.top_n)), file=sys.stderr)
    if n_short:
        print(f"For {n_short:,} of {len(users):,} users fewer than {settings.top_n} movies are left.", file=sys.stderr)
    if settings.output:
        print(f"Wrote the lists of {len(users):,} users to {cli.shown(settings.output)}.")


def new_user(settings: Settings, model: nn.Module, catalogue: Catalogue) -> Past | None:
    """What --liked or --ratings tell of a user who was not in training; liked movies count as the highest rating.

    Raises:
        UserError: a movie is not in the data, or the ratings are of several users.
    """
    if settings.liked:
        movies = [word.strip() for word in settings.liked.split(",")]
        table = pd.DataFrame({"movie": movies, "rating": model.sizes.high})
    elif settings.ratings:
        table = read_ratings(settings.ratings)
        if table["user"].nunique() != 1:
            raise UserError(f"{settings.ratings} holds {table['user'].nunique()} users: give the ratings of one.")
    else:
        return None
    table = table.sort_values("time", kind="stable") if "time" in table else table.assign(time=model.sizes.newest)
    table = table.drop_duplicates("movie", keep="last")
    movies = torch.tensor([find_movies(catalogue, table["movie"].astype(str).tolist())])
    stars = torch.from_numpy(table["rating"].to_numpy(np.float32))[None]
    time = torch.from_numpy(table["time"].to_numpy(np.int64))[None]
    device = next(model.parameters()).device
    return Past(*(column.to(device) for column in (movies, stars, time, torch.ones_like(movies).bool())))


def load_stars(settings: Settings, catalogue: Catalogue, ranking: bool, device: torch.device) -> nn.Module | None:
    """The model of --stars-from.

    Raises:
        UserError: the stars would have no ranking beside them, or belong to other data.
    """
    if settings.stars_from is None:
        return None
    run = finished_run(settings.stars_from)
    model, other = rebuild(read_checkpoint(run / "best.pt"), device)
    if not ranking or model.config.objective != "rating":
        raise UserError("--stars-from wants --run to be trained to rank, and itself a run that was trained for stars.")
    if any(getattr(other, name) != getattr(catalogue, name) for name in ("user_ids", "movie_ids", "titles")):
        raise UserError(f"{run} was trained on other users or movies than --run: train both on the same data.")
    return model


def show(settings: Settings, columns: list[str], words: str, lists: Iterable[UserList], n: int) -> tuple[UserList, int]:
    """Write the lists to the screen or --output; returns the last one and how many are shorter than wanted."""
    n_short = 0
    with opened(settings.output) as file:
        write = WRITERS[settings.format](file, columns, words, one_user=n == 1)
        for found in lists:
            write(found)
            n_short += len(found.movies) < settings.top_n
    return found, n_short


def about(ranking: bool, found: UserList, popular: list) -> str:
    """What the model learned, and how its list compares with the most popular movies."""
    common = len({movie.id for movie in found.movies} & set(popular))
    words = f"among the {len(popular)} most popular that are left: {common} of these {len(found.movies)} movies."
    if ranking:
        return f"The model learned to rank; {words}"
    return (
        f"The model learned stars, not which movies are chosen; {words} "
        "For a list of what the user would choose: python train.py --objective ranking."
    )


@contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """The screen, or a file that appears only once it is complete; of several ranks, rank 0 alone writes it."""
    if output is None or parallel.rank():
        yield sys.stdout
        return
    with write_aside(output) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        yield file


# --- formats: each makes a function that writes one user's list -------------------------------------

Writer = Callable[[UserList], None]


def text_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """The original's line; above it, for one user, a table."""

    def write(found: UserList) -> None:
        if one_user:
            file.write(table(found, columns))
        ids = [movie.id for movie in found.movies]
        file.write(f"Top {len(ids)} {words} {found.user}: {ids}\n")

    return write


def table(found: UserList, columns: list[str]) -> str:
    width = max([len("title"), *(len(movie.title) for movie in found.movies)])
    lines = [f"rank      id  {'title':{width}}  {'  '.join(columns)}  genres"]
    for rank, movie in enumerate(found.movies, start=1):
        genres = movie.genres.replace("|", ", ")
        values = "  ".join(f"{movie.values[name]:{len(name)}.2f}" for name in columns)
        lines.append(f"{rank:4}  {movie.id!s:>6}  {movie.title:{width}}  {values}  {genres}".rstrip())
    return "\n".join(lines) + "\n\n"


def ids_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """A line of movie ids, after the user's id where there are several users."""

    def write(found: UserList) -> None:
        ids = [movie.id for movie in found.movies]
        print(*([] if one_user else [found.user]), *ids, file=file)

    return write


def json_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """A JSON object in a line."""

    def write(found: UserList) -> None:
        movies = [{"id": m.id, "title": m.title, "genres": m.genres} | m.values for m in found.movies]
        print(json.dumps({"user": found.user, "movies": movies}, ensure_ascii=False), file=file)

    return write


def csv_writer(file: TextIO, columns: list[str], words: str, one_user: bool) -> Writer:
    """A row a movie, after a header."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["userId", "rank", "movieId", "title", "genres", *columns])

    def write(found: UserList) -> None:
        for rank, movie in enumerate(found.movies, start=1):
            values = [f"{movie.values[name]:.4f}" for name in columns]
            rows.writerow([found.user, rank, movie.id, movie.title, movie.genres, *values])

    return write


WRITERS = {"text": text_writer, "ids": ids_writer, "json": json_writer, "csv": csv_writer}

if __name__ == "__main__":
    cli.run(main, prints_results=True)
