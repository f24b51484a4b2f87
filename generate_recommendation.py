#!/usr/bin/env python3
"""Recommend movies to one user, several or all, from a finished training.

    python generate_recommendation.py
    python generate_recommendation.py --user 42 --top-n 5 --format json
    python generate_recommendation.py --users 1,6,7                # or a file of ids, one per line
    python generate_recommendation.py --all-users --format csv --output top10.csv
    python generate_recommendation.py --liked 1,3114,2355          # a new user who likes these movies
    python generate_recommendation.py --ratings mine.csv           # or rated them: userId,movieId,rating,timestamp
    python generate_recommendation.py --explain                    # with the ratings that each movie owes most to
    python generate_recommendation.py --at 2003-02-28T20:00        # asked for then, of a sequential model; default: now
    python generate_recommendation.py --similar-to 260
    python generate_recommendation.py --new-movies new.csv         # also movies that were not there: movieId,title ...
    python generate_recommendation.py --audience-of 260            # the users who would like a movie most
    python generate_recommendation.py --genres Comedy,Drama --years 1990-1999 --exclude 1,2      # of these movies alone
    python generate_recommendation.py --run runs/ranking --predictions-from runs/ratings      # predictions beside it
    python generate_recommendation.py --export-vectors vectors.npz # the vectors of movies and users
    python generate_recommendation.py --run hf:owner/name --liked 1,3114   # a shared model, of utils/hub.py
    torchrun --nproc-per-node 2 -- generate_recommendation.py --all-users --output top10.csv    # shared by processes

Recommendations are made from all ratings of a user in the data set, whether they were training, validation or test
ratings. Movies that the user has rated are left out, unless --include-seen; every other movie of the catalogue can
appear, whether somebody has rated it or not. The last line is `Top 10 recommended movie IDs for user 1: [...]`.
"""

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from Models.checkpoint import IdMaps, SavedModel, load_model
from Models.inference.explain import explained
from Models.inference.named import allowed_movies, find_movies, find_users, first_of
from Models.inference.new_movies import add_new_movies, read_new_movies
from Models.inference.new_users import who_likes, with_ratings
from Models.inference.recommend import TopNRecommender, asked_at, audience, beside, similar, vectors
from Models.inputs import CLOCK, PositiveInt
from Models.sequences import PaddedHistory
from utils import cli, distributed, hub
from utils.cli import display_path
from utils.config import Device, Encoding, OptionalFileName, OptionalFolder, optional, parse
from utils.files import UserError, atomic_write
from utils.lists import WRITERS, Format, Recommendations, opened, write_audience
from utils.runs import finished_run
from utils.shared_model import is_shared
from utils.textfiles import lines_of, read_utf8

Run = optional(str, "DIR|hf:OWNER/NAME")
Known = Annotated[
    Literal["all", "train"] | None, tyro.conf.arg(metavar="{all,train}", help_behavior_hint="(default: all)")
]
UserId = optional(str, "ID", "default: 1, or else the first of the data")
MovieId = optional(str, "ID")
Ids = optional(str, "ID,ID,...")
IdsOrFile = optional(str, "ID,ID,...|FILE")
At = optional(str, "TIME", "default: now")
Genres = optional(str, "NAME,NAME,...")
Years = optional(str, "YEAR-YEAR")


@dataclass(frozen=True)
class Settings:
    run: Run = None
    """folder of a finished training, or a shared model (default: the newest in runs/)"""
    user: UserId = None
    """id of the user, as in the data"""
    users: IdsOrFile = None
    """recommend to several users"""
    all_users: bool = False
    """recommend to every user"""
    liked: Ids = None
    """recommend to a new user who likes these movies"""
    ratings: OptionalFileName = None
    """recommend to a new user with the ratings in this file"""
    similar_to: MovieId = None
    """list the movies most similar to this one"""
    audience_of: MovieId = None
    """list the users who would like this movie most"""
    new_movies: OptionalFileName = None
    """also recommend the movies of this file, which were not there: movieId,title,year,genres and more"""
    export_vectors: OptionalFileName = None
    """write the vectors of movies and users to this .npz file"""
    predictions_from: OptionalFolder = None
    """show the ratings that the model of this run predicts beside a ranking"""
    at: At = None
    """when the recommendations are asked for, in local time, of models that take notice of it"""
    known: Known = None
    """the ratings of a user to recommend from: all in the data set, or those that the model was trained on"""
    top_n: PositiveInt = 10
    """how many movies"""
    include_seen: bool = False
    """also recommend movies that the user has rated"""
    explain: bool = False
    """say which ratings of the user each movie owes most to"""
    genres: Genres = None
    """only movies of at least one of these genres"""
    years: Years = None
    """only movies from these years, or from one year"""
    exclude: IdsOrFile = None
    """all movies but these"""
    candidates: IdsOrFile = None
    """only these movies"""
    format: Format = "text"
    """a table, movie ids alone, one JSON object per user or CSV"""
    output: OptionalFileName = None
    """write to this file instead of the screen"""
    encoding: Encoding = None
    device: Device = "auto"


LEAST_SHARED = 0.5  # of the ratings of two runs on the same data, one of them perhaps with newer ratings
FILTERS = ("genres", "years", "exclude", "candidates")
# What can be asked for, one at a time, and the settings that it makes no use of.
REQUESTS = {
    **{"user": (), "users": (), "all_users": (), "liked": ("known", "at"), "ratings": ("known",)},
    "similar_to": ("predictions_from", "known", "include_seen", "explain", "at"),
    "audience_of": ("predictions_from", "include_seen", "explain", *FILTERS),
    "export_vectors": ("predictions_from", "top_n", "include_seen", "explain", *FILTERS, "format", "output"),
}
FILES_OF_IDS = ("users", "exclude", "candidates")  # the settings that may name one


def main() -> None:
    settings = parse(Settings, __doc__)
    with distributed.process_group(cli.resolve_device(settings.device)) as device:
        generate(settings, device)


def generate(settings: Settings, device: torch.device) -> None:
    """What was asked for, made by all ranks and written by rank 0."""
    check_request(settings)
    run = hub.find_shared(settings.run) or finished_run(None if settings.run is None else Path(settings.run))
    saved = load_with_new(settings, run, device)
    check_users(settings, saved)
    if settings.export_vectors is not None:
        export_vectors(settings, saved)
    elif settings.similar_to is not None:
        list_similar(settings, saved)
    elif settings.audience_of is not None:
        list_audience(settings, saved)
    else:
        recommend(settings, saved, device)
    say(f"From {display_path(run)}: {type(saved.model).__name__}, trained on {saved.ids.dataset}.")
    if text := about_training(saved, run):
        say(text)


def load_with_new(settings: Settings, run: Path, device: torch.device) -> SavedModel:
    """The model of a run, with the movies of --new-movies."""
    saved = load_model(run if is_shared(run) else run / "best.pt", device)
    if settings.new_movies is None:
        return saved
    return add_new_movies(saved, run, read_new_movies(settings.new_movies, settings.encoding), device)


def recommend(settings: Settings, saved: SavedModel, device: torch.device) -> None:
    """Recommendations to users of the data or to a new one, and how they compare with the most popular movies."""
    allowed = movie_filter(settings, saved.ids)
    rating_model = load_rating_model(settings, saved, device)
    new, is_timed = new_user(settings, saved)
    time = request_time(settings, saved) if is_timed else 0
    recommender = TopNRecommender(
        saved.model, saved.ids, settings.top_n, settings.include_seen, rating_model, allowed, time
    )
    every = saved.known.history
    if new is not None:
        check_new_users(saved.model, rating_model)
        n_users, first, found, histories = 1, new, recommender.for_histories(new, new), [new]
    else:
        users = wanted_users(settings, saved.ids)
        n_users, first = len(users), every.pad(torch.tensor(users[:1]))
        known = saved.known.training() if settings.known == "train" else every
        found = recommender.for_users(users, known, seen=every)
        histories = (known.pad(torch.tensor([user])) for user in users)
    if settings.explain:
        found = explained(saved, found, (beside(saved.model, asked_at(history, time)) for history in histories))
    ranking = saved.model.config.task == "ranking"
    columns = ["score"] * ranking + ["prediction"] * (not ranking or rating_model is not None)
    several = settings.all_users or settings.users is not None
    last, n_short = show(settings, columns, "recommended movie IDs for user", found, several)
    if not several and last.movies and len(every.movie):
        say(about_popular(last, recommender.most_popular(every, first)))
    if settings.explain and not several and last.movies and not any(movie.reasons for movie in last.movies):
        say("No rating of the user raises these scores: the model reads no ratings, or knows too few of them.")
    if not ranking:
        say(
            "The model learned to predict ratings, not which movies are chosen; for movies that users would choose: "
            "python train.py --preset autoencoder."
        )
    if n_short:
        of_users = f"For {n_short:,} of {n_users:,} users fewer" if several else "Fewer"
        say(f"{of_users} than {settings.top_n} movies are left.")
    if settings.output:
        users_in_words = f"{n_users:,} user{'s' * (n_users > 1)}"
        print(f"Wrote the recommendations for {users_in_words} to {display_path(settings.output)}.")


def list_similar(settings: Settings, saved: SavedModel) -> None:
    """The movies most similar to one.

    Raises:
        UserError: there is no such movie, or no other one.
    """
    (movie,) = find_movies(saved.ids, [settings.similar_to])
    movies = similar(saved.model, saved.ids, movie, settings.top_n, movie_filter(settings, saved.ids))
    if not movies:
        raise UserError(f"The filters leave no movie but {settings.similar_to} itself: change them.")
    found = Recommendations(saved.ids.movie_ids[movie], movies)
    show(settings, ["cosine"], "movie IDs most similar to movie", [found], several=False)
    if len(movies) < settings.top_n:
        say(f"Fewer than {settings.top_n} other movies are left.")
    if settings.output:
        print(f"Wrote the movies most similar to {settings.similar_to} to {display_path(settings.output)}.")


def list_audience(settings: Settings, saved: SavedModel) -> None:
    """The users who would like one movie most.

    Raises:
        UserError: there is no such movie.
    """
    (movie,) = find_movies(saved.ids, [settings.audience_of])
    every = saved.known.history
    known = saved.known.training() if settings.known == "train" else every
    recommender = TopNRecommender(saved.model, saved.ids, settings.top_n, request_time=request_time(settings, saved))
    found = audience(recommender, movie, known, every)
    name = "probability" if saved.model.config.task == "ranking" else "prediction"
    with opened(settings.output) as file:
        write_audience(file, settings.format, saved.ids.movie_ids[movie], name, found)
    if len(found) < settings.top_n:
        say(f"Fewer than {settings.top_n} users have not rated it.")
    if settings.output:
        print(f"Wrote the users who would like {settings.audience_of} most to {display_path(settings.output)}.")


def export_vectors(settings: Settings, saved: SavedModel) -> None:
    """Write the vectors of movies and, where the model has them, of users, as plain arrays."""
    if distributed.rank():
        return
    known = saved.known.training() if settings.known == "train" else saved.known.history
    arrays = vectors(saved.model, saved.ids, known, request_time(settings, saved))
    with atomic_write(settings.export_vectors) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    words = f"{len(arrays['movie_ids']):,} movies"
    if "user_ids" in arrays:
        words += f" and {len(arrays['user_ids']):,} users"
    print(f"Wrote the vectors of {words} to {display_path(settings.export_vectors)}.")


def say(text: str) -> None:
    """Something about the result, beside it."""
    if not distributed.rank():
        print(text, file=sys.stderr)


# --- what was asked for --------------------------------------------------------------------------


def check_request(settings: Settings) -> None:
    """Raises UserError where flags contradict each other, would be ignored or are empty."""
    given = [field.name for field in fields(settings) if getattr(settings, field.name) != field.default]
    asked = [name for name in given if name in REQUESTS]
    if len(asked) > 1:
        raise UserError(f"{flags(asked)} ask for different recommendations: give one of them.")
    for name in asked:
        if unused := [other for other in given if other in REQUESTS[name]]:
            raise UserError(f"{flags([name])} makes no use of {flags(unused)}: leave that out.")
    for name in given:
        if isinstance(value := getattr(settings, name), str) and not value.strip():
            raise UserError(f"{flags([name])} is empty: give it a value or leave it out.")
    if settings.explain and settings.include_seen:
        raise UserError("--explain and --include-seen: what a user has rated needs no reasons, leave one of them out.")
    if settings.explain and settings.format in ("ids", "csv"):
        raise UserError(f"--format {settings.format} has no room for reasons: take text or json.")
    if settings.explain and settings.format == "text" and (settings.all_users or settings.users is not None):
        raise UserError("--explain: the text of several users has no room for reasons, take --format json.")
    if settings.export_vectors is not None and settings.export_vectors.suffix != ".npz":
        raise UserError(f"--export-vectors {settings.export_vectors}: name a file that ends in .npz.")


def flags(names: Sequence[str]) -> str:
    """Settings as the user writes them."""
    return " and ".join("--" + name.replace("_", "-") for name in names)


def check_users(settings: Settings, saved: SavedModel) -> None:
    """Raises UserError where a model without users, which was shared, is asked for some."""
    named = [
        name for name in ("user", "users", "all_users", "audience_of") if getattr(settings, name) not in (None, False)
    ]
    asks_none = any(
        getattr(settings, name) is not None for name in ("liked", "ratings", "similar_to", "export_vectors")
    )
    if not saved.ids.user_ids and settings.predictions_from is not None:
        raise UserError("--predictions-from: a shared model has no ratings to see whether both know the same movies.")
    if not saved.ids.user_ids and (named or not asks_none):
        what = f"{flags(named)}: this" if named else "This"
        raise UserError(
            f"{what} model was shared without its users: name movies with --liked, or a file with --ratings."
        )


def listed(settings: Settings, name: str) -> list[str] | None:
    """The values of a setting that is a list, or the name of a file of ids; None where it is not given.

    Raises:
        UserError: the file is not there or in another encoding, or a value is missing between two commas.
    """
    text = getattr(settings, name)
    if text is None:
        return None
    lines = lines_of_ids(text, settings.encoding) if name in FILES_OF_IDS else [text]
    values = [value.strip() for line in lines if line.strip() for value in line.split(",")]
    if not values or not all(values):
        raise UserError(f"{flags([name])} {text[:80]!r} lacks a value: write one comma between two values.")
    return values


def lines_of_ids(text: str, encoding: str | None) -> list[str]:
    """The lines of the file of this name or, where there is none, the text itself."""
    path = Path(text)
    try:
        is_file = path.exists() and not path.is_dir()  # a pipe is one as well
    except OSError:  # too long for the name of a file
        is_file = False
    if not is_file:
        if path.suffix in (".txt", ".csv"):
            raise UserError(f"There is no file {text}: check the path.")
        return [text]
    return lines_of(read_utf8(path, encoding))


def wanted_users(settings: Settings, ids: IdMaps) -> Sequence[int]:
    """The indices of the users of the data to recommend to.

    Raises:
        UserError: one is not in the data, or named twice.
    """
    if settings.all_users:
        return range(len(ids.user_ids))
    users = listed(settings, "users") or [default_user(ids) if settings.user is None else settings.user]
    if repeated := [user for user, n in Counter(users).items() if n > 1]:
        raise UserError(f"--users names {first_of(repeated)} more than once: name each user once.")
    return find_users(ids, users)


def default_user(ids: IdMaps) -> str:
    """User 1 or, where there is none, the first."""
    users = [str(user) for user in ids.user_ids]
    return "1" if "1" in users else users[0]


def movie_filter(settings: Settings, ids: IdMaps) -> Tensor | None:
    """The movies that may be recommended, as `allowed_movies` gives them."""
    lists = {name: listed(settings, name) for name in FILTERS if name != "years"}
    return allowed_movies(ids, years=years_of(settings), **lists)


def years_of(settings: Settings) -> tuple[int, int] | None:
    """The first and the last of the wanted years; None for all."""
    if settings.years is None:
        return None
    first, dash, last = settings.years.strip().partition("-")
    is_range = (first or last) and all(re.fullmatch("[0-9]{4}|", one) for one in (first, last))
    years = (int(first or 0), int(last or (9999 if dash else first))) if is_range else (1, 0)
    if years[0] > years[1]:
        raise UserError(f"--years {settings.years[:80]!r} is no year or range: write 1994, 1990-1999 or 1990-.")
    return years


def request_time(settings: Settings, saved: SavedModel) -> int:
    """When recommendations are asked for, in seconds since 1970; 0 where the model takes no notice of it.

    Raises:
        UserError: --at is no time, or the model takes no notice.
    """
    takes_time = getattr(saved.model.config, "request_time", False) and saved.model.stats.newest >= CLOCK
    if settings.at is None:
        now = int(datetime.now().timestamp()) if takes_time else 0
        return distributed.all_gather(now)[0]  # the ranks' clocks differ
    if not takes_time:
        raise UserError(
            "--at: this model takes no notice of when it is asked: leave it out, or take a sequential model that was "
            "trained with --request-time on data with times."
        )
    time = seconds_of(settings.at.strip())
    if n := int((saved.known.history.latest_times() > time).sum()):
        say(
            f"{n:,} of {len(saved.ids.user_ids):,} users have ratings after --at: their lists are as of the latest one."
        )
    return time


def seconds_of(text: str) -> int:
    """A date, or a date with a time, as seconds since 1970, local time where no zone is given.

    Raises:
        UserError: it is none, or before 1973, as years and days that look like seconds are.
    """
    try:
        time = int(text) if text.isdecimal() else int(datetime.fromisoformat(text).timestamp())
        datetime.fromtimestamp(time)  # whether there is such a time
    except (ValueError, OverflowError, OSError):
        time = 0
    if time < CLOCK:
        raise UserError(f"--at {text[:80]!r} is no time: write 2003-02-28, 2003-02-28T20:00 or seconds since 1970.")
    return time


# --- new users and other models ------------------------------------------------------------------


def new_user(settings: Settings, saved: SavedModel) -> tuple[PaddedHistory | None, bool]:
    """The history of --liked or --ratings, None without them, and whether times are known.

    Raises:
        UserError: there are none, and --at is given.
    """
    if settings.liked is not None:
        return who_likes(saved, listed(settings, "liked")), False
    if settings.ratings is None:
        return None, True
    history, is_timed = with_ratings(saved, settings.ratings, settings.encoding)
    if settings.at is not None and not is_timed:
        raise UserError(f"--at: {settings.ratings} has no times, so that it can't be told how long before that is.")
    return history, is_timed


def check_new_users(*models: nn.Module | None) -> None:
    """Raises UserError where a model knows its users by embeddings alone."""
    for model in models:
        if not getattr(model, "serves_new_users", True):
            kind = type(model).__name__
            raise UserError(f"{kind} knows only the users that it was trained on: take a run of another preset.")


def load_rating_model(settings: Settings, saved: SavedModel, device: torch.device) -> nn.Module | None:
    """The model of --predictions-from.

    Raises:
        UserError: there is no ranking to show its predictions beside, or it belongs to other data.
    """
    if settings.predictions_from is None:
        return None
    run = finished_run(settings.predictions_from)
    other = load_with_new(settings, run, device)
    if saved.model.config.task != "ranking" or other.model.config.task != "rating":
        raise UserError("--predictions-from takes a run that predicts ratings, beside a --run that ranks.")
    names = ("user_ids", "movie_ids", "titles")
    are_alike = all(getattr(other.ids, name) == getattr(saved.ids, name) for name in names)
    if not are_alike or shared_ratings(saved, other) < LEAST_SHARED:
        raise UserError(f"{run} was trained on other users or movies than --run: train both on the same data.")
    return other.model


# --- output --------------------------------------------------------------------------------------


def shared_ratings(one: SavedModel, other: SavedModel) -> float:
    """The share of the ratings of one data set, of the same users and movies, that the other has: 0 to 1."""
    pairs = [known.history.users() * len(one.ids.movie_ids) + known.history.movie for known in (one.known, other.known)]
    return float(torch.isin(*pairs).double().mean())


def show(
    settings: Settings, columns: list[str], words: str, found: Iterable[Recommendations], several: bool
) -> tuple[Recommendations, int]:
    """Write recommendations to the screen or --output; returns the last ones and how many are shorter than wanted."""
    n_short = 0
    with opened(settings.output) as file:
        write = WRITERS[settings.format](file, columns, words, one_user=not several)
        for one in found:
            write(one)
            n_short += len(one.movies) < settings.top_n
    return one, n_short


def about_popular(found: Recommendations, popular: list) -> str:
    """How the recommendations compare with the most popular movies."""
    common = len({movie.id for movie in found.movies} & set(popular))
    return f"Overlap with the {len(popular)} most popular movies that are left: {common} of {len(found.movies)}."


def about_training(saved: SavedModel, run: Path) -> str | None:
    """A note where the model was trained on a part of the ratings; None where it was trained on all."""
    n, n_trained = len(saved.known.part), len(saved.known.training().movie)
    if n == n_trained:
        return None
    return (
        f"The model was trained on {n_trained:,} of {n:,} ratings; for recommending, "
        f"python train.py --final {shlex.quote(display_path(run))} trains it on all."
    )


if __name__ == "__main__":
    cli.run(main, prints_results=True)
