"""Readers: one set of tables from every format, and faults named by file and line."""

import numpy as np
import pytest
from helpers import REAL_DATA, tiny_ratings, write_dat
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.files import UserError
from utils.ratings import read_ratings
from utils.readers import RawData, common_ids, read_dataset


def test_dat_files_give_their_ids_titles_and_genres(tiny):
    data = read_dataset(tiny)
    assert list(data.ratings.columns) == ["user", "movie", "rating", "time"]
    assert [tuple(row) for row in data.ratings.astype(int).to_numpy()] == tiny_ratings()
    assert data.movies["movie"].tolist()[-2:] == [900, 901]
    movies = data.movies.set_index("movie")
    assert movies.loc[163, "title"] == "Misérables, Les (1995)"  # latin-1 byte 0xe9
    assert movies.loc[900, "title"] == "Never: Rated (1999)"
    assert movies.loc[163, "year"] == 1995 and movies["year"].isna().loc[170]
    assert movies.loc[163, "genres"] == ("Drama", "Musical")
    assert movies.loc[901, "genres"] == movies.loc[170, "genres"] == ()
    assert data.users["gender"].unique().tolist() == ["F"]


def test_utf8_is_read_as_utf8(tiny, tmp_path):
    write_dat(tmp_path / "ml", tiny_ratings())
    text = (tmp_path / "ml/movies.dat").read_text(encoding="latin-1").replace("Misérables", "Miséräbles 七")
    (tmp_path / "ml/movies.dat").write_text(text, encoding="utf-8-sig")
    movies = read_dataset(tmp_path / "ml").movies.set_index("movie")
    assert movies.loc[163, "title"] == "Miséräbles 七, Les (1995)"
    assert movies.index[0] == 2  # the byte-order mark is no part of the first id


def test_a_control_character_in_a_title_does_not_end_a_line(tmp_path):
    write_dat(tmp_path / "ml", tiny_ratings())
    (tmp_path / "ml/movies.dat").write_bytes(
        "\n".join(
            [f"{m}::Film::War" for m in sorted({row[1] for row in tiny_ratings()})]
            + ["950::Wait \x85 What\x0b (1999)::War\r\n"]
        ).encode()
    )
    movies = read_dataset(tmp_path / "ml").movies.set_index("movie")
    assert movies.loc[950, "title"] == "Wait \x85 What\x0b (1999)" and movies.loc[950, "genres"] == ("War",)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_files_are_read_with_either_line_end(tmp_path, newline):
    ratings = ["userId,movieId,rating,timestamp", "7,50,3.5,100", "9,4,0.5,200", ""]
    movies = [
        "movieId,title,genres",
        '50,"Usual Suspects, The (1995)",Crime|Mystery',
        "4,Été (2001),(no genres listed)",
    ]
    (tmp_path / "ratings.csv").write_bytes(newline.join(ratings).encode())
    (tmp_path / "movies.csv").write_bytes(newline.join(movies).encode())
    data = read_dataset(tmp_path)
    assert data.ratings.to_numpy().tolist() == [[7, 50, 3.5, 100], [9, 4, 0.5, 200]]
    assert data.movies["title"].tolist() == ["Usual Suspects, The (1995)", "Été (2001)"]
    assert data.movies["genres"].tolist() == [("Crime", "Mystery"), ()]


def test_csv_columns_are_found_by_name(tmp_path):
    (tmp_path / "r.csv").write_text("rating,userId,movieId\n4,1,2\n")
    assert read_ratings(tmp_path / "r.csv").to_dict("list") == {"user": ["1"], "movie": ["2"], "rating": [4.0]}


def test_recbole_files_read_as_movielens_writes_them(tmp_path):
    (tmp_path / "own.inter").write_text("user_id:token\titem_id:token\trating:float\nana\tm1\t4\nbob\tm1\t2\n")
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (tmp_path / "own.item").write_text(header + "\nm1\tHeat\t1995\tCrime Drama\nm2\tBig (1988)\tV\t\n")
    data = read_dataset(tmp_path)
    assert data.ratings["user"].tolist() == ["ana", "bob"]
    assert data.movies.iloc[0].tolist() == ["m1", "Heat (1995)", 1995, ("Crime", "Drama")]
    assert data.movies.iloc[1].tolist() == ["m2", "Big (1988)", 1988, ()]


def test_an_id_may_look_like_a_missing_value(tmp_path):
    (tmp_path / "own.inter").write_text("user_id:token\titem_id:token\trating:float\nNA\tnull\t4\n")
    assert read_ratings(tmp_path / "own.inter").iloc[0].tolist() == ["NA", "null", 4.0]


def dataset_here(name: str) -> RawData:
    """A real data set that only some machines have; its test is skipped elsewhere."""
    if not (REAL_DATA / name).is_dir():
        pytest.skip(f"the real {name} is not on this machine")
    return read_dataset(REAL_DATA / name)


def test_real_ml_1m():
    data = dataset_here("ml-1m")
    assert data.ratings["rating"].value_counts().to_dict() == {1: 56174, 2: 107557, 3: 261197, 4: 348971, 5: 226310}
    assert (data.ratings["user"] == 1).sum() == 53
    assert len(data.movies) == 3883 and data.movies["movie"].max() == 3952
    assert len(data.movies) - data.ratings["movie"].nunique() == 177
    assert len({genre for genres in data.movies["genres"] for genre in genres}) == 18


def test_real_ml_latest_small():
    data = dataset_here("ml-latest-small")
    assert len(data.ratings) == 100836 and len(data.movies) == 9742
    assert data.ratings["rating"].min() == 0.5


rating_rows = st.lists(
    st.tuples(
        st.integers(1, 10**9), st.integers(1, 10**9), st.sampled_from([0.5, 1, 2.5, 4, 5]), st.integers(10**8, 2**31)
    ),
    min_size=1,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=50, deadline=None)
@given(rows=rating_rows)
@pytest.mark.parametrize(
    ("header", "separator"),
    [
        (None, "::"),
        (None, "\t"),
        ("userId,movieId,rating,timestamp", ","),
        ("user_id:token\titem_id:token\trating:float\ttimestamp:float", "\t"),
    ],
)
def test_every_format_gives_back_what_was_written(header, separator, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("r") / "ratings"
    lines = [header] if header else []
    path.write_text("\n".join(lines + [separator.join(map(str, row)) for row in rows]) + "\n")
    table = read_ratings(path)
    table["user"], table["movie"] = common_ids([table["user"], table["movie"]])
    assert table["user"].dtype == table["movie"].dtype == table["time"].dtype == np.int64
    assert [tuple(row) for row in table.itertuples(index=False)] == rows


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("1::9::x::5", "line 3"),
        ("1::9::::5", "line 3"),
        ("1::9::nan::5", "line 3"),
        ("1::9::4", "line 3"),
        ("", "line 3"),
    ],
)
def test_a_bad_rating_is_named_by_file_and_line(tmp_path, bad, words):
    path = tmp_path / "ratings.dat"
    path.write_text(f"1::2::3::4\n2::2::3::4\n{bad}\n2::9::3::4\n")
    with pytest.raises(UserError, match=words) as caught:
        read_ratings(path)
    assert str(path) in str(caught.value)


def test_an_unreadable_csv_value_is_named_by_its_line(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n1,2,3,4\n1,3,good,5\n")
    with pytest.raises(UserError, match="line 3"):
        read_ratings(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [  # found by damaging files at random
        ("user_id:token\titem_id:token\trating:float\n1\t2\t1e999978302006\n", "line 2"),  # it crashed pandas
        ("978::300\n1::2::3::4\n", "line 1"),
        ('"1::2::3::4\n1::3::x::5"\n', "line 2"),
    ],
)
def test_damage_found_by_fuzzing_is_named_by_line(tmp_path, content, words):
    path = tmp_path / "ratings"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_ratings(path)


@pytest.mark.parametrize("content", ["", "\n", "some words\n", "userId,movieId,rating,timestamp\n"])
def test_a_file_without_ratings_is_refused(tmp_path, content):
    path = tmp_path / "ratings.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=str(path)):
        read_ratings(path)


def test_a_folder_of_no_known_format_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a known data set"):
        read_dataset(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        read_dataset(tmp_path / "none")


def test_a_rated_movie_must_be_in_the_movies_file(tmp_path):
    write_dat(tmp_path / "ml", [*tiny_ratings(), (1, 555, 3, 978_300_001)])
    with pytest.raises(UserError, match=r"lacks.*555"):
        read_dataset(tmp_path / "ml")


@pytest.mark.parametrize(
    ("line", "words"), [("77::No genres field", "2 fields instead of 3"), ("2::Again::War", "listed twice")]
)
def test_a_bad_movie_is_named(tmp_path, line, words):
    write_dat(tmp_path / "ml", tiny_ratings())
    with (tmp_path / "ml/movies.dat").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=words):
        read_dataset(tmp_path / "ml")


RATED = "userId,movieId,rating\n7,1,4\n"


@pytest.mark.parametrize(
    ("ratings", "movies", "fault"),
    [
        ("userId,movieId,rating\n1,7,1,4\n2,8,1,5\n", "movieId,title\n1,Heat\n", "ratings.csv, line 2"),
        (RATED, "movieId,title\n1,1,Heat\n2,2,Big\n", "movies.csv, line 2: .* 3 fields instead of 2"),
        (RATED, "movieId,title,genres\n1,Heat,Crime\n2,Big\n", "movies.csv, line 3: .* 2 fields instead of 3"),
        (RATED, "movieId,title,name\n1,Heat,Heat\n", "two columns for 'title'"),
        ("userId,user_id,movieId,rating\n7,7,1,4\n", "movieId,title\n1,Heat\n", "two columns for 'user'"),
    ],
    ids=["R's row numbers", "row numbers of movies", "a short row", "two titles", "two users"],
)
def test_columns_are_never_guessed(tmp_path, ratings, movies, fault):
    """pandas alone would read most of these, with values in columns that are not theirs."""
    (tmp_path / "ratings.csv").write_text(ratings)
    (tmp_path / "movies.csv").write_text(movies)
    with pytest.raises(UserError, match=fault):
        read_dataset(tmp_path)


def test_a_genre_that_is_listed_twice_is_refused(tmp_path):
    (tmp_path / "u.data").write_text("1\t2\t5\t0\n")
    (tmp_path / "u.genre").write_text("Drama|0\nDrama|1\n")
    (tmp_path / "u.item").write_text("2|Heat (1995)||||1|0\n")
    with pytest.raises(UserError, match="two columns for 'Drama'"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["ratings.dat", "movies.dat", "users.dat"])
@pytest.mark.parametrize("start", [0, 0.4, 0.9])
def test_nul_bytes_are_refused_by_file_and_line(tmp_path, name, start):
    """400 NUL bytes, as a power cut leaves them inside a file."""
    folder = write_dat(tmp_path / "ml", tiny_ratings())
    content = (folder / name).read_bytes()
    first = int(start * len(content))
    hole = content[:first] + bytes(len(content[first : first + 400])) + content[first + 400 :]
    (folder / name).write_bytes(hole)
    with pytest.raises(UserError, match=f"{name}, line [0-9]+: there are NUL bytes"):
        read_dataset(folder)
