"""Users, movies and filters as a user types them."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from Models.checkpoint import SavedModel
from Models.inference.named import allowed_movies, find_movies, find_users
from Models.inference.recommend import TopNRecommender, similar
from utils.files import UserError

IDS = [*range(2, 177, 7), 900, 901]
SOME_IDS = st.lists(st.sampled_from(IDS), min_size=1, max_size=20)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "genres": st.lists(st.sampled_from(["drama", "COMEDY", "Musical", "war"]), min_size=1, max_size=3),
        "years": st.tuples(st.integers(1955, 1990), st.integers(0, 50)).map(lambda pair: (pair[0], sum(pair))),
        "exclude": SOME_IDS,
        "candidates": SOME_IDS,
    },
)


def passes(movie: int, filters: dict) -> bool:
    """Whether a movie of the small data set passes, as its lines in movies.dat say."""
    genres, year = {
        163: (["drama", "musical"], 1995),
        170: ([], None),
        900: (["war"], 1999),
        901: ([], 2000),
    }.get(movie, (["drama", "comedy"], 1960 + movie // 7))
    first, last = filters.get("years", (0, 9999))
    return (
        ("genres" not in filters or bool({genre.lower() for genre in filters["genres"]} & set(genres)))
        and ("years" not in filters or (year is not None and first <= year <= last))
        and movie not in filters.get("exclude", ())
        and movie in filters.get("candidates", IDS)
    )


def mask_of(saved: SavedModel, filters: dict) -> torch.Tensor | None:
    written = {name: [str(movie) for movie in filters[name]] for name in ("exclude", "candidates") if name in filters}
    return allowed_movies(saved.ids, **(filters | written))


@settings(max_examples=60, deadline=None)
@given(FILTERS)
def test_filtered_recommendations_are_all_of_them_filtered_by_hand(saved, filters):
    """For known users, new users, similar movies and the most popular movies."""
    kept = [movie for movie in IDS if passes(movie, filters)]
    if not kept:
        with pytest.raises(UserError, match="No movie of tiny passes the filters"):
            mask_of(saved, filters)
        return
    mask = mask_of(saved, filters)
    assert mask is None if not filters else [i for i, m in zip(IDS, mask.tolist(), strict=True) if m] == kept
    history = saved.ratings.history
    seen = history.pad(torch.tensor([1]))
    for include_seen in (False, True):
        every, few = (TopNRecommender(saved.model, saved.ids, 27, include_seen, None, m) for m in (None, mask))
        for one, other in zip(*(r.for_users([1, 5], history, history) for r in (every, few)), strict=True):
            assert other.movies == [movie for movie in one.movies if movie.id in kept]
        assert few.most_popular(history, seen) == [m for m in every.most_popular(history, seen) if m in kept]
    all_similar, some_similar = (similar(saved.model, saved.ids, 1, 27, m) for m in (None, mask))
    assert some_similar == [movie for movie in all_similar if movie.id in kept]


def test_wrong_filters_are_explained(saved):
    with pytest.raises(UserError, match=r"tiny has no genre Comdy, Noir: choose from Comedy, Drama, Musical, War\."):
        allowed_movies(saved.ids, genres=["Comdy", "war", "Noir"])
    with pytest.raises(UserError, match="tiny has no movie 3, 4: take ids"):
        allowed_movies(saved.ids, candidates=["2", "3", "4"])
    with pytest.raises(UserError, match="tiny has no movie none: take ids"):
        allowed_movies(saved.ids, exclude=["none"])
    bare = dataclasses.replace(saved.ids, genres=[""] * 27, years=[0] * 27)
    with pytest.raises(UserError, match="tiny has no genres: leave out --genres"):
        allowed_movies(bare, genres=["Drama"])
    with pytest.raises(UserError, match="tiny has no release years: leave out --years"):
        allowed_movies(bare, years=(1960, 1970))


def test_movies_without_a_year_are_from_no_year(saved):
    assert saved.ids.years[IDS.index(170)] == 0 and saved.ids.years[IDS.index(901)] == 2000
    with pytest.raises(UserError, match="No movie"):
        allowed_movies(saved.ids, years=(0, 0))


def test_an_id_is_the_same_user_as_number_and_as_text(saved):
    assert find_users(saved.ids, ["4", "1"]) == [saved.ids.user_ids.index(4), saved.ids.user_ids.index(1)]
    words = dataclasses.replace(saved.ids, user_ids=[f"u{user}" for user in saved.ids.user_ids])
    assert find_users(words, ["u4"]) == [saved.ids.user_ids.index(4)]
    with pytest.raises(UserError, match=r"User '2' has no ratings in tiny \(its ids are numbers such as 1\): for a"):
        find_users(saved.ids, ["2"])
    with pytest.raises(UserError, match="its ids are strings such as u1"):
        find_users(words, ["4"])


def test_unknown_movies_are_named(saved):
    assert find_movies(saved.ids, ["2", "163"]) == [0, 23]
    with pytest.raises(UserError, match="tiny has no movie 5, 77: take ids from its movies file"):
        find_movies(saved.ids, ["2", "5", "77"])


def test_of_many_unknown_ids_the_first_five_are_named(saved):
    many = ["1", *(f"x{n}" for n in range(7))]
    with pytest.raises(UserError, match=r"Users 'x0', 'x1', 'x2', 'x3', 'x4', \.\.\. have no ratings in tiny"):
        find_users(saved.ids, many)
    with pytest.raises(UserError, match=r"no movie 1, x0, x1, x2, x3, \.\.\.: take"):
        find_movies(saved.ids, many)
