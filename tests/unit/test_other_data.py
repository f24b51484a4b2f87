"""Data that is not MovieLens: what people's files really look like is read with its right value, or named."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Models.ratings_data import demographics
from utils.files import Note, UserError
from utils.ratings import read_ratings
from utils.readers import RawData, read_dataset

CSV_RATINGS = "userId,movieId,rating,timestamp\n"
CSV_MOVIES = "movieId,title,genres\n"


@pytest.fixture(autouse=True)
def notes_are_seen():
    """A note that a test does not expect is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        yield


def csv_set(
    folder: Path, ratings: str, movies: str = CSV_MOVIES + "1,Heat (1995),Crime\n2,Big (1988),Comedy\n"
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return folder


def ratings_of(tmp_path: Path, text: str | bytes, **options) -> pd.DataFrame:
    path = tmp_path / "ratings.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_ratings(path, **options)


# --- ids -----------------------------------------------------------------------------------------


def test_ids_with_leading_zeros_stay_what_they_are(tmp_path):
    movies = "movieId,title\n0000031852,Heat\n31852,Big\n039592720X,Up\n"
    ratings = "userId,movieId,rating\n4711,0000031852,5\n04711,31852,1\n"
    data = read_dataset(csv_set(tmp_path, ratings, movies))
    assert data.ratings["user"].tolist() == ["4711", "04711"]
    assert data.ratings["movie"].tolist() == ["0000031852", "31852"]
    assert data.movies["movie"].tolist() == ["0000031852", "31852", "039592720X"]


@pytest.mark.parametrize("odd", ["+7", "7.0", "1e1", "007", "-0", "9" * 20])
def test_one_id_that_is_no_integer_as_written_makes_all_of_them_strings(tmp_path, odd):
    data = read_dataset(csv_set(tmp_path, f"userId,movieId,rating\n7,1,5\n{odd},2,1\n"))
    assert data.ratings["user"].tolist() == ["7", odd]
    assert data.ratings["movie"].tolist() == [1, 2]  # movies have ids of their own


def test_an_id_in_the_movies_file_alone_decides_for_the_ratings_as_well(tmp_path):
    data = read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n", "movieId,title\n1,Heat\n039592720X,Up\n"))
    assert data.ratings["movie"].tolist() == ["1"] and data.movies["movie"].tolist() == ["1", "039592720X"]
    assert data.ratings["user"].tolist() == [7]


@pytest.mark.parametrize("movie", ["2", "02"])
def test_tokens_of_recbole_are_ids_like_others(tmp_path, movie):
    """So that MovieLens, in RecBole's form, has the ids of MovieLens."""
    (tmp_path / "own.inter").write_text(f"user_id:token\titem_id:token\trating:float\n1\t{movie}\t4\n2\t3\t3\n")
    (tmp_path / "own.item").write_text(f"item_id:token\tmovie_title:token_seq\n{movie}\tHeat\n3\tBig\n")
    (tmp_path / "own.user").write_text("user_id:token\tage:token\n1\t30\n")
    data = read_dataset(tmp_path)
    assert data.ratings["user"].tolist() == [1, 2] and data.users["user"].tolist() == [1]
    expected = [2, 3] if movie == "2" else ["02", "3"]
    assert data.ratings["movie"].tolist() == data.movies["movie"].tolist() == expected


@settings(max_examples=50, deadline=None)
@given(
    ids=st.lists(
        st.one_of(st.integers(-(10**9), 10**9).map(str), st.from_regex(r"\A[0-9A-Z]{1,10}\Z")), min_size=1, unique=True
    )
)
def test_different_ids_stay_different_and_as_written(tmp_path_factory, ids):
    rows = "".join(f"{one},1,{1 + k % 5}\n" for k, one in enumerate(ids))
    data = read_dataset(csv_set(tmp_path_factory.mktemp("ids"), "userId,movieId,rating\n" + rows))
    assert list(map(str, data.ratings["user"])) == ids
    all_integers = all(one == str(int(one)) for one in ids if one.lstrip("-").isdigit()) and all(
        one.lstrip("-").isdigit() for one in ids
    )
    assert (data.ratings["user"].dtype == np.int64) == all_integers


# --- genres and years ----------------------------------------------------------------------------


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


# --- ratings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(-10, 10), (0, 1), (0, 100), (1, 10), (-1, 1)])
def test_ratings_of_any_scale_are_read(tmp_path, low, high):
    table = ratings_of(tmp_path, f"userId,movieId,rating\n7,1,{low}\n7,2,{high}\n")
    assert table["rating"].tolist() == [low, high]


@pytest.mark.parametrize("nothing", [0, -1])
def test_many_zeros_with_a_gap_above_may_mean_that_a_movie_was_not_rated(tmp_path, nothing):
    rows = [nothing] * 62 + [5, 6, 7, 8, 9, 10] * 6 + [1, 2]
    text = "userId,movieId,rating\n" + "".join(f"{k},1,{rating}\n" for k, rating in enumerate(rows))
    with pytest.warns(
        Note, match=rf"62% of the ratings are {nothing}, .*if {nothing} means that a movie was not rated"
    ):
        ratings_of(tmp_path, text)


def test_no_such_note_where_low_ratings_are_common(tmp_path):
    for rows in ([0] * 50 + [1] * 50, [0, 1, 2, 3, 4, 5] * 10, [-10] * 50 + [10, 3, -4] * 25):
        text = "userId,movieId,rating\n" + "".join(f"{k},1,{rating}\n" for k, rating in enumerate(rows))
        assert len(ratings_of(tmp_path, text)) == len(rows)


@pytest.mark.parametrize("header", ["userId,movieId\n", "userId,movieId,timestamp\n"])
def test_a_file_without_ratings_holds_choices(tmp_path, header):
    row = "7,1,978300000\n" if "time" in header else "7,1\n"
    with pytest.warns(Note, match="has no column for ratings: its lines count as choices"):
        data = read_dataset(csv_set(tmp_path, header + row))
    assert data.ratings["rating"].tolist() == [1.0]


# --- times ---------------------------------------------------------------------------------------

SECONDS = [879024994, 1523092443, 978300760]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ([str(t) for t in SECONDS], None),
        ([f"{t}.0" for t in SECONDS], None),
        ([f"{t}644" for t in SECONDS], "milliseconds"),
        ([f"{t}644123" for t in SECONDS], "microseconds"),
        ([f"{t}644123999" for t in SECONDS], "nanoseconds"),
        (["1997-11-08 21:36:34", "2018-04-07 09:14:03", "2000-12-31 22:12:40"], "the times are dates"),
        (["1997-11-08T21:36:34Z", "2018-04-07T09:14:03Z", "2000-12-31T22:12:40Z"], "the times are dates"),
        (["1997-11-08T23:36:34+02:00", "2018-04-07T09:14:03Z", "2000-12-31T22:12:40Z"], "the times are dates"),
    ],
)
def test_times_are_read_in_every_unit(tmp_path, written, words):
    text = CSV_RATINGS + "".join(f"7,{k},4,{time}\n" for k, time in enumerate(written))
    if words:
        with pytest.warns(Note, match=words):
            table = ratings_of(tmp_path, text)
    else:
        table = ratings_of(tmp_path, text)
    assert table["time"].tolist() == SECONDS and table["time"].dtype == np.int64


def test_a_moment_as_a_whole_number_is_a_date(tmp_path):
    """In place of milliseconds in the year 2602."""
    with pytest.warns(Note, match="the times are dates such as 19971114203634"):
        table = ratings_of(tmp_path, CSV_RATINGS + "7,1,4,19971114203634\n7,2,4,20001231221240\n")
    assert table["time"].tolist() == [879539794, 978300760]


@pytest.mark.parametrize("written", [["1997-11-14", "1970-01-02"], ["19971114", "19700102"]])
def test_days_are_read_as_their_first_second(tmp_path, written):
    with pytest.warns(Note, match="the times are dates"):
        table = ratings_of(tmp_path, CSV_RATINGS + "".join(f"7,{k},4,{day}\n" for k, day in enumerate(written)))
    assert table["time"].tolist() == [879465600, 86400]


def test_numbers_that_are_no_days_stay_seconds(tmp_path):
    with pytest.warns(Note, match="the times, up to 19971399, count as seconds: if they are days or years"):
        table = ratings_of(tmp_path, CSV_RATINGS + "7,1,4,19971114\n7,2,4,19971399\n7,3,4,0\n7,4,4,-5\n")
    assert table["time"].tolist() == [19971114, 19971399, 0, -5]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["978300760000", "978300760"], r"line 3: the time 978300760 is none in milliseconds"),
        (["978300760", "978300761", "1e30"], "line 4: the time 1000000000000000.* is none in seconds"),
        (["978300760", "1523092443644", "978300761"], "line 3: the time 1523092443644 is none in seconds"),
        (["978300760", "8750", "978300761"], "line 3: the time 8750 is none in seconds since 1970"),
        (["131234567890000000", "131234567990000000"], "is none in nanoseconds since 1970"),
        (["978300760", "978300761", "soon"], "line 4: '7,2,4,soon': the time 'soon' is neither"),
        (["1997-11-14", "879465600"], r"line 3: '7,1,4,879465600': its time is not written as those of other lines"),
        (
            ["14/11/1997", "15/11/1997"],
            r"line 2: '7,0,4,14/11/1997': the time '14/11/1997' is neither a number nor a date",
        ),
        (["1997-11-14", "soon"], r"line 3: '7,1,4,soon': the time 'soon' is neither"),
        (["1997-11-14", ""], r"line 3: '7,1,4,': the time is missing"),
    ],
)
def test_times_that_are_mixed_or_none_are_named(tmp_path, times, words):
    with warnings.catch_warnings(), pytest.raises(UserError, match=words):
        warnings.simplefilter("ignore", Note)
        ratings_of(tmp_path, CSV_RATINGS + "".join(f"7,{k},4,{time}\n" for k, time in enumerate(times)))


@pytest.mark.parametrize("cut", ["97830076", "9", "2000-12-31"])
def test_a_last_line_that_is_cut_inside_its_time_is_named(tmp_path, cut):
    whole = "2000-12-31 22:12:40" if "-" in cut else "978300760"
    with warnings.catch_warnings(), pytest.raises(UserError, match=r"line 4: .*cut inside its time"):
        warnings.simplefilter("ignore", Note)
        ratings_of(tmp_path, CSV_RATINGS + f"7,1,4,{whole}\n7,2,4,{whole}\n7,3,4,{cut}")


def test_a_file_without_the_end_of_its_last_line_is_read_with_a_note(tmp_path):
    with pytest.warns(Note, match="ends without the end of a line"):
        assert ratings_of(tmp_path, CSV_RATINGS + "7,1,4,978300760\n7,2,4,978300761")["time"].tolist()[-1] == 978300761


# --- headers and separators ----------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "names", ["userId movieId rating timestamp", "user_id item_id score time", "USER MOVIE Rating date"]
)
def test_separators_and_names_of_columns_are_recognised(tmp_path, separator, names):
    header = separator.join(f'"{name}"' for name in names.split())
    table = ratings_of(tmp_path, f"{header}\n" + separator.join(["7", "1", "4", "978300760"]) + "\n")
    assert table.to_dict("list") == {"user": ["7"], "movie": ["1"], "rating": [4.0], "time": [978300760]}


def test_a_recbole_header_without_types_is_read(tmp_path):
    (tmp_path / "own.inter").write_text("user_id\titem_id\trating\n1\t2\t4\n2\t2\t3\n")
    (tmp_path / "own.item").write_text("item_id\tmovie_title\trelease_year\tclass\n2\tHeat\t1995\tCrime Drama\n")
    data = read_dataset(tmp_path)
    assert data.ratings["rating"].tolist() == [4, 3] and data.movies["genres"].tolist() == [("Crime", "Drama")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "1,296,5.0,1147880044\n",
            "line 1: '1,296,5.0,1147880044' starts no known format of ratings: put a header above",
        ),
        (
            "customer,movieId,rating\n7,1,4\n",
            "line 1: .* names no column for the user: give it one of the names userid",
        ),
        ("userId,film,rating\n7,1,4\n", "line 1: .* names no column for the movie: give it one of the names movieid"),
        (
            "userId;movieId;rating\n7;1;4,5\n",
            r"line 2: '7;1;4,5': the rating '4,5' is not a number: write it with a point",
        ),
        ("userId,movieId,rating\n7,1,4,5\n", "line 2: .* there are 4 fields instead of 3, user, movie, rating"),
        ("userId,movieId,rating\n7,1,\n", "line 2: '7,1,': the rating is missing"),
        ("userId,movieId,rating\n,1,4\n", "line 2: ',1,4': the user is missing"),
        ("userId,movieId,rating\n7,1,4\n\n8,1,4\n", "line 3: '': the line is blank"),
        ("userId,movieId,rating\n7,1,good\n", "line 2: '7,1,good': the rating 'good' is not a number"),
        ("userId,movieId,rating,date,timestamp\n7,1,4,9,9\n", "two columns for 'time'"),
        ("uid\tiid\tr\n7\t1\t4\n", "line 1: .* the rating 'r' is not a number"),
        ("7\t1\n", "line 1: .* starts no known format"),
    ],
)
def test_the_sentence_names_what_is_wrong_with_a_line_as_it_stands_in_the_file(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        ratings_of(tmp_path, text)


def test_columns_and_files_that_are_not_used_are_named(tmp_path):
    folder = csv_set(
        tmp_path, CSV_RATINGS + "7,1,5,978300009\n", "movieId,title,overview\n1,Heat,A thief and a policeman\n"
    )
    with pytest.warns(Note, match="movies.csv: not used: the columns overview"):
        read_dataset(folder)
    (folder / "movies.csv").write_text("movieId,title\n1,Heat\n")
    (folder / "own.inter").write_text("user_id:token\titem_id:token\trating:float\n")
    with pytest.warns(Note, match=r"holds ratings.csv, own.inter: only the first is read"):
        read_dataset(folder)


# --- users ---------------------------------------------------------------------------------------


def test_age_groups_are_a_category(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "".join(f"{user},1,5,978300009\n" for user in range(1, 5)))
    (folder / "users.csv").write_text("userId,age\n1,25-34\n2,18-24\n3,25-34\n4,\n")
    data = read_dataset(folder)
    found = demographics(data.users, np.array([1, 2, 3, 4]))
    assert found.to_numpy().tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]]


# --- encodings -----------------------------------------------------------------------------------

TITLES = {
    "cp1251": "Брат",
    "gbk": "霸王别姬",
    "cp1252": "Ocean’s Eleven",
    "utf-16": "Amélie",
    "shift_jis": "もののけ姫",
}


@pytest.mark.parametrize("encoding", TITLES)
def test_text_in_a_declared_encoding_is_read(tmp_path, encoding):
    folder = csv_set(tmp_path, "")
    (folder / "ratings.csv").write_text("userId,movieId,rating\nю,1,5\n".replace("ю", "u"), encoding=encoding)
    (folder / "movies.csv").write_text(f"movieId,title\n1,{TITLES[encoding]}\n", encoding=encoding)
    assert read_dataset(folder, encoding).movies["title"].tolist() == [TITLES[encoding]]
    with pytest.raises(UserError, match=r"line [12]: the byte 0x.* is not UTF-8: .*--encoding"):
        read_dataset(folder)


@pytest.mark.parametrize("title", ["Брат и сестра", "霸王别姬", "Ocean’s Eleven"])
def test_no_text_is_taken_for_latin_1_that_does_not_look_like_it(tiny, tmp_path, title):
    folder = shutil.copytree(tiny, tmp_path / "ml")
    encoding = next(name for name, text in TITLES.items() if text[:2] == title[:2])
    with (folder / "movies.dat").open("ab") as file:
        file.write(f"950::{title}::War\n".encode(encoding))
    content = (folder / "movies.dat").read_bytes().replace(b"Mis\xe9rables", b"Miserables")
    (folder / "movies.dat").write_bytes(content)
    with pytest.raises(UserError, match=r"movies.dat, line 28: the byte 0x.. is not UTF-8: .*--encoding"):
        read_dataset(folder)
    assert read_dataset(folder, encoding).movies["title"].iloc[-1] == title


def test_utf_8_with_one_byte_of_latin_1_is_never_read_half_and_half(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "ml")
    content = (folder / "movies.dat").read_bytes()  # with "Misérables" in latin-1, in line 24
    (folder / "movies.dat").write_bytes(content + "950::Amélie::Comedy\n".encode())
    with pytest.raises(UserError, match=r"movies.dat, line 24: the byte 0xe9 is not UTF-8"):
        read_dataset(folder)


def test_a_faulty_byte_of_a_declared_encoding_is_named(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n")
    (folder / "movies.csv").write_bytes(b"movieId,title\n1,Heat\n2,\xff\xff\n")
    with pytest.raises(UserError, match=r"movies.csv, line 3: the byte 0xff is not gbk"):
        read_dataset(folder, "gbk")


def test_json_genres_survive_as_they_are(tmp_path):
    """Names with the separators of other notations inside."""
    genres = json.dumps(["Science, Fiction", "Film|Noir"]).replace('"', '""')
    data: RawData = read_dataset(
        csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n", f'{CSV_MOVIES}1,Heat,"{genres}"\n')
    )
    assert data.movies["genres"].tolist() == [("Science, Fiction", "Film|Noir")]


def test_latin_1_for_a_file_of_windows_is_refused(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n")
    (folder / "movies.csv").write_bytes(b"movieId,title\n1,Heat\n2,Ocean\x92s Eleven\n")
    with pytest.raises(UserError, match=r"line 3: as latin-1, there are control characters: .* such as cp1252"):
        read_dataset(folder, "latin-1")
    assert read_dataset(folder, "cp1252").movies["title"].tolist() == ["Heat", "Ocean\u2019s Eleven"]


def test_zeros_that_one_file_lost_are_named(tmp_path):
    movies = "movieId,title\n0086121936,Heat\n"
    with pytest.raises(UserError, match="there are such ids with other zeros in front: write each id alike"):
        read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,86121936,5\n", movies))


def test_ids_are_the_same_with_blanks_around_them(tmp_path):
    data = read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n7 , 2,4\n 8,1,3\n"))
    assert data.ratings["user"].tolist() == [7, 7, 8] and data.ratings["movie"].tolist() == [1, 2, 1]


def test_lists_of_genres_that_cannot_be_read_are_counted(tmp_path):
    movies = CSV_MOVIES + "1,Heat,\"[{'id': 16, 'na\"\n2,Big,[]\n"
    with pytest.warns(Note, match="1 lists of genres can't be read"):
        read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n8,1,4\n", movies))


@pytest.mark.parametrize("title", ["طعم گیلاس (۱۳۷۶)", "新世界 （１９９５）"])
def test_years_in_other_digits_are_unknown(tmp_path, title):
    data = read_dataset(csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n", f"movieId,title\n1,{title}\n"))
    assert data.movies["year"].isna().all() and data.movies["title"].tolist() == [title]


@pytest.mark.parametrize(("odd", "words"), [(99, "none is between 10 and 99"), (55, "none is between 10 and 55")])
def test_a_rating_far_from_all_others_is_named(tmp_path, odd, words):
    rows = [*range(-10, 11), odd]
    with pytest.warns(Note, match=f"from -10 to {odd}, {words}"):
        ratings_of(tmp_path, "userId,movieId,rating\n" + "".join(f"{k},1,{one}\n" for k, one in enumerate(rows)))


def test_a_users_file_of_other_ids_is_named(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "1,1,5,978300009\n2,1,4,978300009\n")
    (folder / "users.csv").write_text("userId,age\n0001,25\n0002,30\n")
    with pytest.warns(Note, match="none of the 2 users with ratings is in the users file"):
        read_dataset(folder)
    (folder / "users.csv").write_text("userId,age\n1,25\n1,30\n")
    with pytest.raises(UserError, match="user 1 is listed twice"):
        read_dataset(folder)


@pytest.mark.parametrize("unknown", ["", "?", "NA", "\\N", "65+"])
def test_one_odd_age_leaves_the_others_grouped(tmp_path, unknown):
    folder = csv_set(tmp_path, CSV_RATINGS + "".join(f"{user},1,5,978300009\n" for user in range(1, 5)))
    (folder / "users.csv").write_text(f"userId,age\n1,25\n2,30\n3,60\n4,{unknown}\n")
    found = demographics(read_dataset(folder).users, np.array([1, 2, 3, 4]))
    assert found.sum(axis=1).tolist() == [1, 1, 1, 0] and found.iloc[0].equals(found.iloc[1].rename(1))


@pytest.mark.parametrize("encoding", ["latin2", "latin5", "iso8859-15"])
def test_other_latins_are_not_taken_for_latin_1(tiny, tmp_path, encoding):
    title = {"latin2": "Człowiek z żelaza", "latin5": "Şaşkın Dedektif", "iso8859-15": "Le cœur"}[encoding]
    folder = shutil.copytree(tiny, tmp_path / "ml")
    content = (folder / "movies.dat").read_bytes().replace(b"Mis\xe9rables", b"Miserables")
    (folder / "movies.dat").write_bytes(content + f"950::{title}::War\n".encode(encoding))
    with pytest.raises(UserError, match=r"line 28: the byte 0x.. is not UTF-8"):
        read_dataset(folder)
    assert read_dataset(folder, encoding).movies["title"].iloc[-1] == title


def test_a_declared_encoding_is_for_the_files_that_are_not_utf_8(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n")
    (folder / "movies.csv").write_text("movieId,title\n1,Amélie\n", encoding="utf-16")
    assert read_dataset(folder, "utf-16").movies["title"].tolist() == ["Amélie"]
