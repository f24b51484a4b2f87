"""Ids of data that is not MovieLens: numbers or words, as written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_data import csv_set

from utils.files import UserError
from utils.readers import read_dataset


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
    assert data.ratings["movie"].tolist() == [1, 2]  # movie ids are not affected


def test_an_id_in_the_movies_file_alone_decides_for_the_ratings_as_well(tmp_path):
    data = read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n", "movieId,title\n1,Heat\n039592720X,Up\n"))
    assert data.ratings["movie"].tolist() == ["1"] and data.movies["movie"].tolist() == ["1", "039592720X"]
    assert data.ratings["user"].tolist() == [7]


@pytest.mark.parametrize("movie", ["2", "02"])
def test_tokens_of_recbole_are_ids_like_others(tmp_path, movie):
    """MovieLens in RecBole's format therefore keeps its ids."""
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


def test_zeros_that_one_file_lost_are_named(tmp_path):
    movies = "movieId,title\n0086121936,Heat\n"
    with pytest.raises(UserError, match="some differ only in leading zeros: write each id alike"):
        read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,86121936,5\n", movies))


def test_ids_are_the_same_with_blanks_around_them(tmp_path):
    data = read_dataset(csv_set(tmp_path, "userId,movieId,rating\n7,1,5\n7 , 2,4\n 8,1,3\n"))
    assert data.ratings["user"].tolist() == [7, 7, 8] and data.ratings["movie"].tolist() == [1, 2, 1]
