"""Recommendations, and how they are written: text, ids, JSON or CSV."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from utils import distributed
from utils.files import atomic_write

Format = Literal["text", "ids", "json", "csv"]


@dataclass(frozen=True)
class Reason:
    """A rating of the user to which a recommended movie owes some of its score.

    fall: how much lower the score is without it, in the unit of the score
    shared: what both movies have in common, in words
    """

    id: int | str
    title: str
    rating: float
    fall: float
    shared: list[str]


@dataclass(frozen=True)
class Movie:
    """A recommended movie."""

    id: int | str
    title: str
    genres: str  # "Action|Comedy"
    values: dict[str, float]  # by name: "prediction" of a rating, "score" of a ranking, "cosine" of similar movies
    is_new: bool = False  # added to a finished training
    reasons: list[Reason] | None = None  # the most important first; None unless requested


Subject = Literal["user", "movie"]  # whose list it is: a user's or, for similar movies, a movie's
COLUMN = {"user": "userId", "movie": "similarTo"}
WORDS = {"user": "recommended movie IDs for user", "movie": "movie IDs most similar to movie"}


@dataclass(frozen=True)
class Recommendations:
    """The top-N of the user or movie with this id, best first."""

    id: int | str
    movies: list[Movie]


@dataclass(frozen=True)
class Shown:
    """Lists that were written: how many, how many of them are shorter than requested, and the last one."""

    n: int
    n_short: int
    last: Recommendations


@contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """The screen, or a file that appears only once it is complete; of several ranks, only rank 0 writes it."""
    if output is None or distributed.rank():
        yield sys.stdout
        return
    with atomic_write(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


# --- formats: each makes a function that writes one top-N --------------------------------------------

Writer = Callable[[Recommendations], None]


def text_writer(file: TextIO, columns: list[str], of: Subject, only_one: bool) -> Writer:
    """The original's line; above it, a table if there is only one list."""

    def write(found: Recommendations) -> None:
        if only_one:
            file.write(table(found, columns))
        ids = [movie.id for movie in found.movies]
        file.write(f"Top {len(ids)} {WORDS[of]} {found.id}: {ids}\n")

    return write


def table(found: Recommendations, columns: list[str]) -> str:
    width = max([len("title"), *(len(movie.title) for movie in found.movies)])
    id_width = max([6, *(len(str(movie.id)) for movie in found.movies)])
    lines = [f"rank  {'id':>{id_width}}  {'title':{width}}  {'  '.join(columns)}  genres"]
    for rank, movie in enumerate(found.movies, start=1):
        genres = movie.genres.replace("|", ", ") + "  (new)" * movie.is_new
        values = "  ".join(f"{movie.values[name]:{len(name)}.2f}" for name in columns)
        lines.append(f"{rank:4}  {movie.id!s:>{id_width}}  {movie.title:{width}}  {values}  {genres}".rstrip())
        lines += [f"{'':{id_width + 8}}{in_words(reason)}" for reason in movie.reasons or ()]
    return "\n".join(lines) + "\n\n"


def in_words(reason: Reason) -> str:
    """ "+0.42 for Toy Story (1995), rated 5: Animation, director John Lasseter" """
    words = f"+{reason.fall:.2f} for {reason.title}, rated {reason.rating:g}"
    return f"{words}: {', '.join(reason.shared)}" if reason.shared else words


def ids_writer(file: TextIO, columns: list[str], of: Subject, only_one: bool) -> Writer:
    """A line of movie ids, after the user's id if there are several users."""

    def write(found: Recommendations) -> None:
        ids = [movie.id for movie in found.movies]
        print(*([] if only_one else [found.id]), *ids, file=file)

    return write


def json_writer(file: TextIO, columns: list[str], of: Subject, only_one: bool) -> Writer:
    """One JSON object per line; in ASCII for a screen that can't show every character."""
    ascii_only = not (file.encoding or "utf-8").lower().startswith("utf")

    def write(found: Recommendations) -> None:
        content = {of: found.id, "movies": [as_json(movie) for movie in found.movies]}
        print(json.dumps(content, ensure_ascii=ascii_only), file=file)

    return write


def as_json(movie: Movie) -> dict[str, Any]:
    content = {"id": movie.id, "title": movie.title, "genres": movie.genres} | movie.values
    if movie.is_new:
        content["new"] = True
    if movie.reasons is not None:
        content["reasons"] = [asdict(reason) for reason in movie.reasons]
    return content


def csv_writer(file: TextIO, columns: list[str], of: Subject, only_one: bool) -> Writer:
    """One row per movie, after a header."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([COLUMN[of], "rank", "movieId", "title", "genres", *columns])

    def write(found: Recommendations) -> None:
        for rank, movie in enumerate(found.movies, start=1):
            values = [f"{movie.values[name]:.4f}" for name in columns]
            rows.writerow([found.id, rank, movie.id, movie.title, movie.genres, *values])

    return write


def write_audience(
    file: TextIO, form: Format, movie: int | str, name: str, users: list[tuple[int | str, float]]
) -> None:
    """The users who would like a movie, and how much, in one of the formats."""
    ids = [user for user, _ in users]
    if form == "ids":
        print(*ids, file=file)
    elif form == "json":
        content = {"movie": movie, "users": [{"id": user, name: value} for user, value in users]}
        print(json.dumps(content, ensure_ascii=not (file.encoding or "utf-8").lower().startswith("utf")), file=file)
    elif form == "csv":
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["movieId", "rank", "userId", name])
        rows.writerows([movie, rank, user, f"{value:.4f}"] for rank, (user, value) in enumerate(users, start=1))
    else:
        width = max([4, *(len(str(user)) for user in ids)])
        print(f"rank  {'user':>{width}}  {name}", file=file)
        for rank, (user, value) in enumerate(users, start=1):
            print(f"{rank:4}  {user!s:>{width}}  {value:{len(name)}.4f}", file=file)
        print(f"\nTop {len(ids)} user IDs for movie {movie}: {ids}", file=file)


WRITERS = {"text": text_writer, "ids": ids_writer, "json": json_writer, "csv": csv_writer}
