"""Requests to generate_recommendation.py: the flags, whether they fit together, and what their values mean."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro
from torch import Tensor

from Models.checkpoint import IdMaps, SavedModel
from Models.inference.named import allowed_movies, find_users, first_of
from Models.inputs import CLOCK, PositiveInt
from utils import distributed
from utils.config import Device, Encoding, OptionalFileName, OptionalFolder, flag, optional
from utils.files import UserError
from utils.lists import Format
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
class Request:
    """The command line: one request, and how its answer is shown."""

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
    """also recommend the new movies in this file: movieId,title,year,genres and more"""
    export_vectors: OptionalFileName = None
    """write the vectors of movies and users to this .npz file"""
    predictions_from: OptionalFolder = None
    """show the ratings that the model of this run predicts next to a ranking"""
    at: At = None
    """when the recommendations are requested, in local time, for models that use it"""
    known: Known = None
    """the ratings of a user to recommend from: all in the data set, or those that the model was trained on"""
    top_n: PositiveInt = 10
    """how many movies"""
    include_seen: bool = False
    """also recommend movies that the user has rated"""
    explain: bool = False
    """show which of the user's ratings raise each movie's score most"""
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

    @property
    def for_several(self) -> bool:
        """Whether lists are for several users."""
        return self.all_users or self.users is not None


FILTERS = ("genres", "years", "exclude", "candidates")
# What can be asked for, one at a time, and the settings that it does not support.
REQUESTS = {
    "user": (),
    "users": (),
    "all_users": (),
    "liked": ("known", "at"),
    "ratings": ("known",),
    "similar_to": ("predictions_from", "known", "include_seen", "explain", "at"),
    "audience_of": ("predictions_from", "include_seen", "explain", *FILTERS),
    "export_vectors": ("predictions_from", "top_n", "include_seen", "explain", *FILTERS, "format", "output"),
}
FILES_OF_IDS = ("users", "exclude", "candidates")  # the settings that may name a file


def check_request(request: Request) -> None:
    """Raises UserError if flags contradict each other, would be ignored or are empty."""
    given = [field.name for field in fields(request) if getattr(request, field.name) != field.default]
    asked = [name for name in given if name in REQUESTS]
    if len(asked) > 1:
        raise UserError(f"{flags(asked)} ask for different recommendations: give one of them.")
    for name in asked:
        if unused := [other for other in given if other in REQUESTS[name]]:
            raise UserError(f"{flags([name])} does not support {flags(unused)}: leave it out.")
    for name in given:
        if isinstance(value := getattr(request, name), str) and not value.strip():
            raise UserError(f"{flags([name])} is empty: give it a value or leave it out.")
    if request.encoding is not None and not {"ratings", "new_movies", *FILES_OF_IDS} & set(given):
        raise UserError("--encoding: no file is read with it, leave it out.")
    if request.explain and request.include_seen:
        raise UserError("--explain and --include-seen: what a user has rated needs no reasons, leave one of them out.")
    if request.explain and request.format in ("ids", "csv"):
        raise UserError(f"--format {request.format} has no room for reasons: take text or json.")
    if request.explain and request.format == "text" and request.for_several:
        raise UserError("--explain: the text of several users has no room for reasons, take --format json.")
    if request.export_vectors is not None and request.export_vectors.suffix != ".npz":
        raise UserError(f"--export-vectors {request.export_vectors}: name a file that ends in .npz.")


def flags(names: Sequence[str]) -> str:
    """Settings as the user writes them."""
    return " and ".join(map(flag, names))


def check_users(request: Request, saved: SavedModel) -> None:
    """Raises UserError if a request needs users that the model was shared without."""
    named = [
        name for name in ("user", "users", "all_users", "audience_of") if getattr(request, name) not in (None, False)
    ]
    asks_none = any(getattr(request, name) is not None for name in ("liked", "ratings", "similar_to", "export_vectors"))
    if not saved.ids.user_ids and request.predictions_from is not None:
        raise UserError("--predictions-from: a shared model has no ratings to see whether both know the same movies.")
    if not saved.ids.user_ids and (named or not asks_none):
        what = f"{flags(named)}: this" if named else "This"
        raise UserError(
            f"{what} model was shared without its users: name movies with --liked, or a file with --ratings."
        )


def listed(request: Request, name: str) -> list[str] | None:
    """The values of a setting that is a list or names a file of ids; None if it is not given.

    Raises:
        UserError: the file is missing or in another encoding, or a value is missing between two commas.
    """
    text = getattr(request, name)
    if text is None:
        return None
    lines = lines_of_ids(text, request.encoding) if name in FILES_OF_IDS else [text]
    values = [value.strip() for line in lines if line.strip() for value in line.split(",")]
    if not values or not all(values):
        raise UserError(f"{flags([name])} {text[:80]!r} lacks a value: write one comma between two values.")
    return values


def lines_of_ids(text: str, encoding: str | None) -> list[str]:
    """The lines of the file of this name or, if there is none, the text itself."""
    path = Path(text)
    try:
        is_file = path.exists() and not path.is_dir()  # a pipe counts as one
    except OSError:  # too long for a file name
        is_file = False
    if not is_file:
        if path.suffix in (".txt", ".csv"):
            raise UserError(f"There is no file {text}: check the path.")
        return [text]
    return lines_of(read_utf8(path, encoding))


def wanted_users(request: Request, ids: IdMaps) -> Sequence[int]:
    """The indices of the users of the data to recommend to.

    Raises:
        UserError: one is not in the data, or named twice.
    """
    if request.all_users:
        return range(len(ids.user_ids))
    users = listed(request, "users") or [default_user(ids) if request.user is None else request.user]
    if repeated := [user for user, n in Counter(users).items() if n > 1]:
        raise UserError(f"--users names {first_of(repeated)} more than once: name each user once.")
    return find_users(ids, users)


def default_user(ids: IdMaps) -> str:
    """User 1 or, if there is none, the first."""
    users = [str(user) for user in ids.user_ids]
    return "1" if "1" in users else users[0]


def movie_filter(request: Request, ids: IdMaps) -> Tensor | None:
    """The movies that may be recommended, as `allowed_movies` gives them."""
    lists = {name: listed(request, name) for name in FILTERS if name != "years"}
    return allowed_movies(ids, years=years_of(request), **lists)


def years_of(request: Request) -> tuple[int, int] | None:
    """The first and the last of the wanted years; None for all."""
    if request.years is None:
        return None
    first, dash, last = request.years.strip().partition("-")
    is_range = (first or last) and all(re.fullmatch("[0-9]{4}|", one) for one in (first, last))
    years = (int(first or 0), int(last or (9999 if dash else first))) if is_range else (1, 0)
    if years[0] > years[1]:
        raise UserError(f"--years {request.years[:80]!r} is no year or range: write 1994, 1990-1999 or 1990-.")
    return years


def request_time(request: Request, saved: SavedModel) -> int:
    """When recommendations are requested, in seconds since 1970; 0 if the model does not use it.

    Raises:
        UserError: --at is not a time, or the model does not use it.
    """
    takes_time = getattr(saved.model.config, "request_time", False) and saved.model.stats.newest >= CLOCK
    if request.at is None:
        now = int(datetime.now().timestamp()) if takes_time else 0
        return distributed.all_gather(now)[0]  # the ranks' clocks differ
    if not takes_time:
        raise UserError(
            "--at: this model does not use the time of a request: leave it out, or take a sequential model that was "
            "trained with --request-time on data with times."
        )
    return seconds_of(request.at.strip())


def seconds_of(text: str) -> int:
    """A date, a date with a time, or seconds since 1970, as seconds since 1970; local time if no zone is given.

    Raises:
        UserError: it is not a time, or before 1973, which catches years and days that look like seconds.
    """
    try:
        time = int(text) if text.isdecimal() else int(datetime.fromisoformat(text).timestamp())
        datetime.fromtimestamp(time)  # fails if there is no such time
    except (ValueError, OverflowError, OSError):
        time = 0
    if time < CLOCK:
        raise UserError(f"--at {text[:80]!r} is no time: write 2003-02-28, 2003-02-28T20:00 or seconds since 1970.")
    return time
