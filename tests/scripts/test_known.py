"""Recommendations use all known ratings of a user: training, validation and test ratings alike.

One validation rating of one user is changed. Validation ratings train nothing, so the weights stay the same, bit for
bit, and whatever differs in the recommendations comes from that rating as a known one.
"""

import csv
import io
from pathlib import Path

import pytest
from helpers import RATIOS, SMALL, TINY_TRAINING, recommend_here, states_are_equal, tiny_ratings, train_here, write_dat

from Models.ratings_data import split_rows

RATED = {user: {row[1] for row in tiny_ratings() if row[0] == user} for user in range(1, 90, 3)}


@pytest.fixture(scope="module")
def changed(data, tiny_features, tmp_path_factory) -> tuple[int, tuple]:
    """The user of a validation rating of 5, and the flags of the data set in which that rating is 1."""
    ratings = tiny_ratings()
    row = next(row for row in split_rows(data, "random", RATIOS).val.tolist() if ratings[row][2] == 5)
    user, movie, _, time = ratings[row]
    ratings[row] = (user, movie, 1, time)
    folder = write_dat(tmp_path_factory.mktemp("changed") / "tiny", ratings)
    return user, ("--data", folder, "--features", tiny_features)


def recommendations(run: Path, *flags: object) -> list[dict[str, str]]:
    """The recommendations for all users, in lists as long as the catalogue, so that every unrated movie is listed."""
    text = recommend_here("--run", run, "--all-users", "--top-n", 27, "--format", "csv", *flags)
    return list(csv.DictReader(io.StringIO(text)))


def movies_of(rows: list[dict[str, str]], user: int) -> set[int]:
    return {int(row["movieId"]) for row in rows if row["userId"] == str(user)}


def test_the_changed_rating_is_one_of_many(changed, tiny):
    before, after = ((folder / "ratings.dat").read_text().splitlines() for folder in (tiny, changed[1][1]))
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


@pytest.mark.parametrize("preset", ["history", "autoencoder", "gru"])
def test_a_known_rating_that_did_not_train_moves_its_user(preset, run_script, places, changed, tmp_path):
    user, other_places = changed
    flags = ("--preset", preset, "--epochs", 1, *SMALL[preset])
    one = train_here(*places, *flags, "--run", tmp_path / "one")
    other = train_here(*other_places, *flags, "--run", tmp_path / "other")
    assert states_are_equal(one / "best.pt", other / "best.pt")
    done = run_script("generate_recommendation.py", "--run", other, "--user", user, "--top-n", 27, "--format", "csv")
    value = "prediction" if preset == "history" else "score"

    both = [recommendations(run) for run in (one, other)]
    assert [row for row in both[0] if row["userId"] != str(user)] == [r for r in both[1] if r["userId"] != str(user)]
    assert list(csv.DictReader(io.StringIO(done.stdout))) == [row for row in both[1] if row["userId"] == str(user)]
    mine = [{row["movieId"]: row[value] for row in rows if row["userId"] == str(user)} for rows in both]
    assert mine[0].keys() == mine[1].keys() and len(mine[0]) == 27 - 12
    assert sum(mine[0][movie] != mine[1][movie] for movie in mine[0]) > 10

    trained = [recommendations(run, "--known", "train") for run in (one, other)]
    assert trained[0] == trained[1] != both[0]
    for rows in (both[0], trained[0]):  # rated movies are left out, whichever ratings the scores come from
        assert all(movies_of(rows, u) == all_movies() - RATED[u] for u in RATED)


def all_movies() -> set[int]:
    return {*range(2, 177, 7), 900, 901}


def test_a_validation_rating_moves_an_ncf_once_it_is_trained_on_all_ratings(places, changed, tmp_path):
    """An NCF knows users by their embeddings, which only its training ratings have shaped."""
    user, other_places = changed
    one = train_here(*places, *TINY_TRAINING, "--run", tmp_path / "one")
    other = train_here(*other_places, *TINY_TRAINING, "--run", tmp_path / "other")
    assert states_are_equal(one / "last.pt", other / "last.pt")
    before = [recommendations(run) for run in (one, other)]
    assert before[0] == before[1]
    assert all(movies_of(before[0], u) == all_movies() - RATED[u] for u in RATED)

    finals = [train_here("--final", run, "--run", tmp_path / f"{run.name}-final") for run in (one, other)]
    after = [recommendations(run) for run in finals]
    mine = [[(r["movieId"], r["prediction"]) for r in rows if r["userId"] == str(user)] for rows in after]
    assert mine[0] != mine[1] and before[0] != after[0]
    assert [movie for movie, _ in mine[0]] != [movie for movie, _ in mine[1]]  # in another order, too
    assert all(movies_of(after[0], u) == all_movies() - RATED[u] for u in RATED)
