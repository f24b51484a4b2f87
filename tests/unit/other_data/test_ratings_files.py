"""Ratings on any scale or none, other separators and column names, and what is wrong with a line."""

import pytest
from own_data import CSV_RATINGS, csv_set, ratings_of

from utils.files import Note, UserError
from utils.readers import read_dataset


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


def test_a_file_without_the_end_of_its_last_line_is_read_with_a_note(tmp_path):
    with pytest.warns(Note, match="does not end with a line break"):
        assert ratings_of(tmp_path, CSV_RATINGS + "7,1,4,978300760\n7,2,4,978300761")["time"].tolist()[-1] == 978300761


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
            "line 1: '1,296,5.0,1147880044' begins no known ratings format: put a header above",
        ),
        (
            "customer,movieId,rating\n7,1,4\n",
            "line 1: .* names no column for the user: give it one of the names userid",
        ),
        ("userId,film,rating\n7,1,4\n", "line 1: .* names no column for the movie: give it one of the names movieid"),
        (
            "userId;movieId;rating\n7;1;4,5\n",
            r"line 2: '7;1;4,5': the rating '4,5' is not a number: write it with a decimal point",
        ),
        ("userId,movieId,rating\n7,1,4,5\n", "line 2: .* there are 4 fields instead of 3 \\(user, movie, rating\\)"),
        ("userId,movieId,rating\n7,1,\n", "line 2: '7,1,': the rating is missing"),
        ("userId,movieId,rating\n,1,4\n", "line 2: ',1,4': the user is missing"),
        ("userId,movieId,rating\n7,1,4\n\n8,1,4\n", "line 3: '': the line is blank"),
        ("userId,movieId,rating\n7,1,good\n", "line 2: '7,1,good': the rating 'good' is not a number"),
        ("userId,movieId,rating,date,timestamp\n7,1,4,9,9\n", "two columns for 'time'"),
        ("uid\tiid\tr\n7\t1\t4\n", "line 1: .* the rating 'r' is not a number"),
        ("7\t1\n", "line 1: .* begins no known ratings format"),
    ],
)
def test_the_sentence_names_what_is_wrong_with_a_line_as_it_stands_in_the_file(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        ratings_of(tmp_path, text)


def test_columns_and_files_that_are_not_used_are_named(tmp_path):
    folder = csv_set(
        tmp_path, CSV_RATINGS + "7,1,5,978300009\n", "movieId,title,overview\n1,Heat,A thief and a policeman\n"
    )
    with pytest.warns(Note, match=r"movies.csv: unknown columns are ignored \(overview\)"):
        read_dataset(folder)
    (folder / "movies.csv").write_text("movieId,title\n1,Heat\n")
    (folder / "own.inter").write_text("user_id:token\titem_id:token\trating:float\n")
    with pytest.warns(Note, match=r"holds ratings.csv, own.inter: only the first is read"):
        read_dataset(folder)


@pytest.mark.parametrize(("odd", "words"), [(99, "with none between 10 and 99"), (55, "with none between 10 and 55")])
def test_a_rating_far_from_all_others_is_named(tmp_path, odd, words):
    rows = [*range(-10, 11), odd]
    with pytest.warns(Note, match=f"from -10 to {odd}, {words}"):
        ratings_of(tmp_path, "userId,movieId,rating\n" + "".join(f"{k},1,{one}\n" for k, one in enumerate(rows)))
