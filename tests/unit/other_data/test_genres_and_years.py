"""Genres and years in every usual notation."""

import json

import pytest
from own_data import CSV_MOVIES, CSV_RATINGS, csv_set

from utils.files import Note
from utils.movie_files import read_movies
from utils.readers import RawData, read_dataset


@pytest.mark.parametrize(
    "written",
    [
        ["Animation|Comedy", "Drama", ""],
        ["Animation, Comedy", "Drama", ""],
        ["Animation ; Comedy", "Drama", "unknown"],
        [" Animation | Comedy ", " Drama", "(no genres listed)"],
        ["Animation|comedy", "drama", ""],
        ['"Animation"|"Comedy"', '"Drama"', "\\N"],
        ["('Animation', 'Comedy')", "('Drama',)", "None"],
        ["['Animation', 'Comedy']", '{"name": "Drama"}', "n/a"],
        ["['Animation', 'Comedy']", "['Drama']", "[]"],
        ['["Animation", "Comedy"]', '["Drama"]', "[]"],
        ['[{"id": 16, "name": "Animation"}, {"id": 35, "name": "Comedy"}]', '[{"id": 18, "name": "Drama"}]', "[]"],
        ["[{'id': 16, 'name': 'Animation'}, {'id': 35, 'name': 'Comedy'}]", "[{'id': 18, 'name': 'Drama'}]", ""],
    ],
)
def test_genres_are_read_in_every_usual_notation(tmp_path, written):
    quoted = ['"' + text.replace('"', '""') + '"' for text in [*written, "Comedy", "Drama"]]
    movies = CSV_MOVIES + "".join(f"{k},Film {k},{text}\n" for k, text in enumerate(quoted))
    genres = read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n8,1,4\n", movies)).movies["genres"]
    assert genres.tolist() == [("Animation", "Comedy"), ("Drama",), (), ("Comedy",), ("Drama",)]


@pytest.mark.parametrize("separator", [" ", "|", ", "])
def test_genres_of_recbole_are_read_with_other_separators_as_well(tmp_path, separator):
    (tmp_path / "own.inter").write_text("user_id:token\titem_id:token\trating:float\n1\t2\t4\n2\t2\t3\n")
    rows = f"2\tHeat\tCrime{separator}Film-Noir\n3\tBig\tComedy\n"
    (tmp_path / "own.item").write_text("item_id:token\tmovie_title:token_seq\tclass:token_seq\n" + rows)
    assert read_dataset(tmp_path).movies["genres"].tolist() == [("Crime", "Film-Noir"), ("Comedy",)]


def test_a_blank_in_a_genre_is_kept_where_others_are_separated(tmp_path):
    movies = CSV_MOVIES + "1,Heat,Film Noir|Crime\n2,Big,Comedy\n"
    genres = read_dataset(csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n", movies)).movies["genres"]
    assert genres.tolist() == [("Film Noir", "Crime"), ("Comedy",)]


def test_what_does_not_look_like_genres_is_named_with_a_count_and_an_example(tmp_path):
    rows = "".join(f"{k},Film {k},Animation and Comedy of the year {k}\n" for k in range(1, 88))
    with pytest.warns(Note, match="87 different genres for 87 movies, such as 'Animation and Comedy of the year"):
        read_dataset(csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n", CSV_MOVIES + rows))


@pytest.mark.parametrize("column", ["year", "release_year", "release_date", "Release Date"])
@pytest.mark.parametrize(
    "written", ["1995", "1995.0", "1995-10-30", "1995-10-30T00:00:00Z", "30-Oct-1995", "10/30/1995"]
)
def test_years_are_read_in_every_usual_form(tmp_path, column, written):
    movies = f"movieId,title,{column}\n1,Heat,{written}\n2,Big (1988),\n"
    data = read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n8,1,4\n", movies))
    assert data.movies["year"].tolist() == [1995, 1988]
    assert data.movies["title"].tolist() == ["Heat (1995)", "Big (1988)"]


def test_years_that_cannot_be_read_are_counted(tmp_path):
    movies = "movieId,title,year\n1,Heat,soon\n2,Big (1988),V\n3,Up,\n4,It,99999\n"
    with pytest.warns(Note, match="2 of 4 years can't be read, such as 'soon'"):
        data = read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n8,1,4\n", movies))
    assert data.movies["year"].isna().tolist() == [True, False, True, True]


def test_json_genres_survive_as_they_are(tmp_path):
    """The names contain separators of other notations."""
    genres = json.dumps(["Science, Fiction", "Film|Noir"]).replace('"', '""')
    data: RawData = read_dataset(
        csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n", f'{CSV_MOVIES}1,Heat,"{genres}"\n')
    )
    assert data.movies["genres"].tolist() == [("Science, Fiction", "Film|Noir")]


def test_lists_of_genres_that_cannot_be_read_are_counted(tmp_path):
    movies = CSV_MOVIES + "1,Heat,\"[{'id': 16, 'na\"\n2,Big,[]\n"
    with pytest.warns(Note, match="1 lists of genres can't be read"):
        read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n8,1,4\n", movies))


@pytest.mark.parametrize("title", ["طعم گیلاس (۱۳۷۶)", "新世界 （１９９５）"])
def test_years_in_other_digits_are_unknown(tmp_path, title):
    data = read_dataset(csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n", f"movieId,title\n1,{title}\n"))
    assert data.movies["year"].isna().all() and data.movies["title"].tolist() == [title]


def test_a_year_alone_is_no_title(tmp_path):
    """Neither in the data nor in a file of new movies, which are encoded alike."""
    rows = "movieId,title,year,genres\n1,,1995,Drama\n2,Heat,1995,Drama\n"
    data = read_dataset(csv_set(tmp_path, CSV_RATINGS + "1,1,4,0\n1,2,3,0\n", rows))
    (tmp_path / "new.csv").write_text(rows)
    assert data.movies["title"].tolist() == read_movies(tmp_path / "new.csv")["title"].tolist() == ["", "Heat (1995)"]
