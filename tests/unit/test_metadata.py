"""utils/metadata.py: titles in many notations, remakes, and that no outcome is in the file by default."""

import sqlite3
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from helpers import ROOT

from utils import metadata
from utils.config import DEFAULT_DATA
from utils.files import UserError
from utils.readers import read_dataset

LATEST = ROOT.parent / "shared/data/ml-latest-small"
OMDB = ["ID", "imdbID", "Title", "Year", "Runtime", "Genre", "Director", "Writer", "Cast"]
OMDB += ["Metacritic", "imdbRating", "imdbVotes", "Language", "Country", "Oscars"]
FILMS = [
    # title, year, genre, director
    ("The Postman", 1997, "Sci-Fi, Drama", "Kevin Costner"),
    ("Il Postino: The Postman", 1994, "Romance", "Michael Radford"),
    ("Les Misérables", 1995, "Drama", "Claude Lelouch"),
    ("12 Monkeys", 1995, "Sci-Fi", "Terry Gilliam"),
    ("Alien³", 1992, "Horror", "David Fincher"),
    ("King Kong", 1976, "Horror, Adventure", "John Guillermin"),
    ("King Kong", 2005, "Adventure", "Peter Jackson"),
    ("Emma", 1996, "Drama, Romance", "Douglas McGrath"),
    ("Emma", 1996, "Drama, Romance", "Diarmuid Lawrence"),
    ("Eden", 2000, "War", "A"),
    ("Eden", 2000, "Comedy", "B"),
    ("Mission: Impossible", 1996, "Action", "Brian De Palma"),
]


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("films") / "movies.db"
    write_films(path)
    return metadata.read_films(path)


def write_films(path: Path) -> None:
    """A small table of films in the source's format."""
    rows = [dict.fromkeys(OMDB) | {"ID": k, "imdbID": f"tt{k:07}"} for k in range(len(FILMS))]
    for row, (title, year, genre, director) in zip(rows, FILMS, strict=True):
        row |= {"Title": title, "Year": year, "Genre": genre, "Director": director, "imdbRating": 7.5, "Oscars": 1}
        row |= {"Cast": "Ann Lee, Sammy Davis, Jr., Bo Li", "Language": "English, French", "Runtime": 100.0}
    critics = pd.DataFrame({"ID": range(len(FILMS)), "Meter": 90, "BoxOffice": 1e6, "Production": "A, B"})
    with sqlite3.connect(path) as connection:
        pd.DataFrame(rows).to_sql("omdb", connection, index=False)
        critics.to_sql("tomatoes", connection, index=False)


def found(films: pd.DataFrame, title: str, year: int | None, *genres: str) -> tuple[str, str] | None:
    """The director of the film found for a movie, and how it was matched; None without a match."""
    movies = pd.DataFrame({"movie": [7], "title": [title], "genres": [genres]})
    movies["year"] = pd.array([year], dtype="Int16")
    table = metadata.found_films(movies, films)
    assert table["movieId"].tolist() == [7] * len(table)
    return (table["director"][0], table["matched"][0]) if len(table) else None


@pytest.mark.parametrize(
    ("title", "year", "director", "matched"),
    [
        ("Postman, The (1997)", 1997, "Kevin Costner", "title"),
        ("THE POSTMAN", 1998, "Kevin Costner", "title, year -1"),
        ("Postino, Il (1994)", 1994, "Michael Radford", "start of the film's title"),
        ("Misérables, Les (1995)", 1995, "Claude Lelouch", "title"),
        ("Miserables (1994)", 1994, "Claude Lelouch", "title, year +1"),
        ("Twelve Monkeys (1995)", 1995, "Terry Gilliam", "title"),
        ("Unknown Title (a.k.a. 12 Monkeys) (1995)", 1995, "Terry Gilliam", "another title"),
        ("Alien 3 (1992)", 1992, "David Fincher", "title"),
        ("King Kong (2005)", 2005, "Peter Jackson", "title"),
        ("Mission: Impossible (1996)", 1996, "Brian De Palma", "title"),
    ],
)
def test_titles_are_found_in_any_notation(films, title, year, director, matched):
    assert found(films, title, year) == (director, matched)


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("King Kong (1933)", 1933),  # a remake is another film
        ("Emma (1996)", 1996),  # two films fit equally well
        ("Mission: Impossible II (2000)", 2000),
        ("Postman, The", None),
        ("(1997)", 1997),
        ("", 1997),
    ],
)
def test_what_is_not_sure_is_not_found(films, title, year):
    assert found(films, title, year, "Drama") is None


def test_genres_decide_between_films_of_one_title_and_year(films):
    assert found(films, "Eden (2000)", 2000, "Comedy") == ("B", "title")
    assert found(films, "Eden (2000)", 2000, "War", "Drama") == ("A", "title")
    assert found(films, "Eden (2000)", 2000, "Western") is None


def test_names_are_separated_but_for_their_suffixes(films):
    assert films["cast"][0] == "Ann Lee|Sammy Davis, Jr.|Bo Li" and films["company"][0] == "A|B"
    assert metadata.separated("Jr., A, , A, B, III") == "Jr.|A|B, III"


def run_metadata(monkeypatch, tmp_path: Path, *flags: object) -> pd.DataFrame:
    """What the script writes about two movies of a data set, from the small table of films."""
    folder = tmp_path / "films"
    folder.mkdir(exist_ok=True)
    if not (folder / "movies.db").is_file():
        write_films(folder / "movies.db")
    monkeypatch.setattr(metadata, "FILMS", folder)
    data = tmp_path / "mine"
    data.mkdir(exist_ok=True)
    (data / "movies.csv").write_text(
        "movieId,title,genres\na,Twelve Monkeys (1995),Sci-Fi\nb,Nobody Knows (1995),War\n"
    )
    (data / "ratings.csv").write_text("userId,movieId,rating\n1,a,5\n1,b,3\n2,a,4\n")
    output = tmp_path / "metadata.csv"
    with mock.patch.object(
        sys, "argv", ["metadata.py", "--data", str(data), "--output", str(output), *map(str, flags)]
    ):
        metadata.main()
    return pd.read_csv(output)


def test_no_outcome_is_in_the_file_by_default(monkeypatch, tmp_path, capsys):
    table = run_metadata(monkeypatch, tmp_path)
    assert list(table) == ["movieId", "title", *metadata.COLUMNS, "matched"]
    assert not set(table) & set(metadata.OUTCOMES)
    assert table["movieId"].tolist() == ["a"] and table["director"].tolist() == ["Terry Gilliam"]
    assert "Found 1 of 2 movies of mine, which have 66.7% of the ratings." in capsys.readouterr().out
    table = run_metadata(monkeypatch, tmp_path, "--outcomes")
    assert table[["critics", "imdb_rating", "oscars", "box_office"]].values.tolist() == [[90, 7.5, 1, 1e6]]


def test_each_data_folder_has_a_metadata_file_of_its_own():
    assert metadata.metadata_file(DEFAULT_DATA) == metadata.METADATA
    assert metadata.metadata_file(DEFAULT_DATA.with_name("ml-100k")).name == "ml-100k_metadata.csv"


def test_a_damaged_table_of_films_is_explained(tmp_path):
    (tmp_path / "movies.db").write_bytes(b"no database")
    with pytest.raises(UserError, match=r"movies\.db is damaged: delete .* and run this again"):
        metadata.read_films(tmp_path / "movies.db")


@pytest.mark.skipif(not LATEST.is_dir(), reason="without MovieLens latest-small, whose links.csv has the IMDb ids")
def test_nearly_every_film_is_the_right_one():
    """Checked by the IMDb ids of MovieLens, which the search does not use."""
    try:
        path = metadata.fetch_films()
    except UserError as error:
        pytest.skip(str(error))
    table = metadata.found_films(read_dataset(LATEST).movies, metadata.read_films(path))
    links = pd.read_csv(LATEST / "links.csv", dtype={"imdbId": str}).merge(table, on="movieId").dropna(subset="imdb_id")
    right = "tt" + links["imdbId"] == links["imdb_id"]
    assert len(links) > 7_000 and right.mean() > 0.995
