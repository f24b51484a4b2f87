"""Metadata files: columns with more information about movies, each of a kind, and the feature blocks made from them.

| kind | what a field holds | in a header |
| --- | --- | --- |
| names | names from a large set, such as people, separated by `|` | director:names |
| category | one or more words from a small set, separated by `|` | mood:category |
| number | a number | runtime:number |
| text | text, which is encoded as titles are | plot:text |

The columns that utils/metadata.py writes need no kind in the header.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from utils.files import UserError, note
from utils.movies import YEAR_AT_END
from utils.textfiles import Header, find_header, lines_of, plain, read_utf8, refuse_repeated

Kind = Literal["text", "category", "names", "number"]
NAMES = ("director", "writer", "cast", "language", "country", "company", "genre")  # from utils/metadata.py
KINDS: dict[str, Kind] = dict.fromkeys(NAMES, "names") | {"runtime": "number"}
IDS = dict.fromkeys(("movieid", "itemid", "movie", "item"), "movieId")
ABOUT = ("title", "year", "genres", "imdb_id", "matched")  # columns for human readers
OUR_NAMES = {plain(name): name for name in (*KINDS, *ABOUT)}  # by any spelling
RESERVED = ("title", "genres", "year", "popularity")  # blocks that exist without a metadata file
MIN_MOVIES_OF_A_NAME = 2  # a name with fewer says nothing about other movies
MAX_CATEGORIES = 1_000
MAX_NUMBER = 1e15
SENTENCES = {"director": "Directed by", "writer": "Written by", "cast": "With", "country": "From"}
MAX_RENAMED = 0.1  # share of a metadata file's titles that may differ from the data's


@dataclass(frozen=True)
class Column:
    """A column of a metadata file, for some movies.

    values: one per movie, in the requested order: a tuple of words, a number (NaN if unknown) or a text
    """

    name: str
    kind: Kind
    values: list


@dataclass(frozen=True)
class Block:
    """One column as numbers, for every movie.

    values: [n_movies, width]: dense text vectors or numbers, or, sparse, 1 for each word that a movie has
    vocabulary: of names and categories, the word that each column of `values` stands for
    """

    name: str
    kind: Kind
    values: np.ndarray | sp.csr_matrix
    vocabulary: tuple[str, ...] = ()

    def n_known(self) -> int:
        """The number of movies with a value."""
        if sp.issparse(self.values):
            return int((self.values.getnnz(1) > 0).sum())
        known = np.isfinite(self.values) if self.kind == "number" else self.values != 0
        return int(known.any(1).sum())


def read_columns(path: Path, movies: pd.DataFrame, encoding: str | None = None) -> list[Column]:
    """The columns of a metadata file that have a kind, for these movies in their order; a note names the others.

    Raises:
        UserError: the file is damaged, has none of these movies, or was made for other movies.
    """
    header, rows = read_table(path, IDS, encoding)
    names = header.names
    of_movie = {row[names.index("movieId")].strip(): row for row in rows}
    if len(of_movie) < len(rows):
        raise UserError(f"{path} has several lines for one movie: keep one line per movie.")
    found = [of_movie.get(str(movie)) for movie in movies["movie"]]
    _check_movies(path, names, found, movies)
    kinds = {name: kind or KINDS.get(name) for name, kind in zip(names, _kinds(path, header), strict=True)}
    unused = [name for name in names if kinds[name] is None and name not in (*ABOUT, "movieId")]
    if unused:
        note(
            f"{path}: columns without a kind are ignored ({', '.join(unused)[:200]}): write the kind after the name, "
            f"as in {unused[0][:40]}:names; the kinds are {', '.join(get_args(Kind))}."
        )
    return [
        Column(name, kinds[name], _values(path, name, kinds[name], [row and row[k] for row in found]))
        for k, name in enumerate(names)
        if kinds[name] is not None
    ]


def read_table(path: Path, known: dict[str, str], encoding: str | None = None) -> tuple[Header, list[list[str]]]:
    """The header and the rows of a CSV file whose header may give the columns kinds.

    Args:
        known: our name of each known column; one of movie ids is required

    Raises:
        UserError: the file is missing, damaged, or without a column of ids.
    """
    lines = lines_of(read_utf8(path, encoding))
    header = find_header(lines[0], known)
    if header is None or not set(header.names) & set(IDS.values()):
        raise UserError(f"{path}, line 1: {lines[0][:80]!r} names no column of movie ids: call that column movieId.")
    if header.names[-1] == "":  # empty columns, as spreadsheets append
        n = len(header.names) - next(k for k, name in enumerate(reversed(header.names)) if name)
    else:
        n = len(header.names)
    names = [OUR_NAMES.get(plain(name), name.strip()) for name in header.names[:n]]
    without = (*ABOUT, *IDS.values())  # RecBole's types of ids and titles are not kinds
    types = ["" if name in without else kind.strip() for name, kind in zip(names, header.types, strict=False)]
    refuse_repeated(path, names)
    try:
        rows = list(csv.reader((line + "\n" for line in lines), delimiter=header.separator, strict=True))[1:]
    except csv.Error as error:
        raise UserError(f"{path} has misplaced quotes ({error}): close each, and double those inside.") from error
    for number, row in enumerate(rows, start=2):
        if row and len(row) != len(header.names):
            raise UserError(f"{path}, row {number} has {len(row)} fields, not {len(header.names)}: correct it.")
    return Header(header.separator, names, types), [row[:n] for row in rows if row]


def _kinds(path: Path, header: Header) -> list[str]:
    """The kinds that a header names, "" where it names none."""
    for name, kind in zip(header.names, header.types, strict=True):
        if kind and kind not in get_args(Kind):
            raise UserError(f"{path}: {name}:{kind} is not a kind of column: choose from {', '.join(get_args(Kind))}.")
        if kind and (name in RESERVED or not re.fullmatch(r"[\w.-]+", name)):
            raise UserError(f"{path}: a column can't be called {name[:40]!r}: use another name, of letters and digits.")
    return header.types


def _check_movies(path: Path, names: list[str], found: list, movies: pd.DataFrame) -> None:
    """Refuse a file that was made for other movies."""
    if not any(found):
        raise UserError(f"{path} has none of the data's movies, such as {movies['movie'].iloc[0]}: check its ids.")
    if "title" in names:
        k = names.index("title")
        pairs = [(row[k], title) for row, title in zip(found, movies["title"], strict=True) if row is not None]
        other = [pair for pair in pairs if len({plain(re.sub(YEAR_AT_END, "", title)) for title in pair}) > 1]
        if len(other) > MAX_RENAMED * len(pairs):
            raise UserError(
                f"{path} was made for other movies: its {other[0][0][:60]!r} is {other[0][1][:60]!r} in the data: "
                "make it for this data."
            )


def _values(path: Path, name: str, kind: Kind, fields: list[str | None]) -> list:
    if kind == "text":
        return [(field or "").strip() for field in fields]
    if kind == "number":
        return [_number(path, name, field) for field in fields]
    return [words_of(field or "") for field in fields]


def words_of(field: str) -> tuple[str, ...]:
    """The names or categories of a field, each once."""
    return tuple(dict.fromkeys(word.strip() for word in field.split("|") if word.strip()))


def _number(path: Path, name: str, field: str | None) -> float:
    try:
        value = float(field) if field and field.strip() else float("nan")
    except ValueError:
        value = float("inf")
    if abs(value) > MAX_NUMBER:
        raise UserError(f"{path}: the {name} {field[:40]!r} is not a valid number: correct it, or leave it empty.")
    return value


# --- blocks --------------------------------------------------------------------------------------


def make_block(column: Column) -> Block:
    """The block of a column of names, categories or numbers."""
    if column.kind == "number":
        return Block(column.name, "number", np.array(column.values, np.float32)[:, None])
    counts = Counter(word for words in column.values for word in words)
    least = MIN_MOVIES_OF_A_NAME if column.kind == "names" else 1
    vocabulary = tuple(sorted(word for word, count in counts.items() if count >= least))
    if column.kind == "category" and len(vocabulary) > MAX_CATEGORIES:
        raise UserError(f"The column {column.name} has {len(vocabulary):,} categories: change its kind to names.")
    return Block(column.name, column.kind, multi_hot(column.values, vocabulary), vocabulary)


def multi_hot(values: Iterable[Sequence[str]], vocabulary: Sequence[str]) -> sp.csr_matrix:
    """1 for each word that a movie has and that is in the vocabulary, float32 [n_movies, len(vocabulary)]."""
    index = {word: k for k, word in enumerate(vocabulary)}
    rows = [sorted({index[word] for word in words if word in index}) for words in values]
    offsets = np.cumsum([0, *map(len, rows)])
    columns = np.array([column for row in rows for column in row], np.int64)
    return sp.csr_matrix((np.ones(len(columns), np.float32), columns, offsets), (len(rows), len(vocabulary)))


def main_texts(kind: str, movies: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """The text to encode for each movie: the title; `metadata`, the text of `sentences`; or title and a text column.

    Raises:
        UserError: there is no metadata file, or it has no such text column.
    """
    titles = movies["title"].tolist()
    if kind == "title":
        return titles
    if not columns:
        raise UserError(f"--text {kind} needs a metadata file: name one with --metadata.")
    if kind == "metadata":
        return sentences(movies, columns)
    texts = {column.name: column.values for column in columns if column.kind == "text"}
    if kind not in texts:
        raise UserError(f"--text {kind}: the metadata has no such text column: choose title, metadata{_or(texts)}.")
    return [f"{title}. {text}" if text else title for title, text in zip(titles, texts[kind], strict=True)]


def _or(names: dict) -> str:
    return "".join(f" or {name}" for name in names)


def sentences(movies: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """The facts about each movie as a text: `Heat (1995). Action, Crime. Directed by Michael Mann. With ...`"""
    named = {column.name: column.values for column in columns if column.kind in ("names", "category")}
    found = []
    for k, (title, genres) in enumerate(zip(movies["title"], movies["genres"], strict=True)):
        parts = [title, ", ".join(genres)]
        for name, words in SENTENCES.items():
            if name in named and named[name][k]:
                parts.append(f"{words} {', '.join(named[name][k])}")
        found.append(". ".join(part for part in parts if part) + ".")
    return found
