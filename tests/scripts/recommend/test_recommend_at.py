"""Lists as of the time of the request, from a model that takes the time into account."""

import dataclasses
import json
import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import refusal
from helpers import SMALL, recommend_here, train_here

from Models.checkpoint import load_model
from Models.inference.named import find_users
from Models.inference.recommend import TopNRecommender, asked_at
from utils.files import Note, UserError


@pytest.fixture(scope="module")
def transformer_run(places, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("timed") / "run"
    return train_here(*places, "--run", run, "--preset", "transformer", "--epochs", 3, *SMALL["transformer"])


def test_lists_are_as_of_the_time_of_the_request(transformer_run):
    """The time is in seconds or a date; the default, now, lies a longer gap after the ratings than any in the data."""

    def scores(*flags: object) -> list[float]:
        found = json.loads(recommend_here("--run", transformer_run, "--user", 4, "--format", "json", *flags))
        return [movie["score"] for movie in found["movies"]]

    saved = load_model(transformer_run / "best.pt", torch.device("cpu"))
    assert saved.model.stats.longest_gap > 0
    (user,) = find_users(saved.ids, ["4"])
    latest = saved.ratings.history.pad(torch.tensor([user]))
    with torch.no_grad():
        expected = saved.model.score(dataclasses.replace(latest, request_time=latest.request_time + 1))[0]
    expected[latest.movie[0]] = -torch.inf
    at = datetime.fromtimestamp(int(latest.request_time) + 1)
    for words in (int(latest.request_time) + 1, at.isoformat(), at.astimezone().isoformat(sep=" ")):
        assert scores("--at", words) == pytest.approx(expected.topk(10).values.tolist(), abs=1e-5)
    before = recommend_here("--run", transformer_run, "--user", 4, "--at", "1990-01-01")
    assert before == recommend_here("--run", transformer_run, "--user", 4, "--at", int(latest.request_time))
    assert scores() == scores("--at", "2200-01-01") != scores("--at", int(latest.request_time))


def test_liked_movies_were_rated_just_before_the_request(transformer_run, monkeypatch):
    """One every ten minutes, the last a minute before the request, so that no gap of years lies in between."""
    asked = []
    of_history = TopNRecommender.for_histories

    def spy(self, known, seen):
        asked.append(asked_at(known, self.request_time))
        return of_history(self, known, seen)

    monkeypatch.setattr(TopNRecommender, "for_histories", spy)
    recommend_here("--run", transformer_run, "--liked", "2,9,163")
    newest = load_model(transformer_run / "best.pt", torch.device("cpu")).model.stats.newest
    assert asked[0].time.tolist() == [[newest - 1260, newest - 660, newest - 60]]
    assert asked[0].request_time.tolist() == [newest]


def test_vectors_and_audiences_are_asked_for_at_a_time_as_well(transformer_run, tmp_path):
    saved = load_model(transformer_run / "best.pt", torch.device("cpu"))
    history, after = saved.ratings.history, int(saved.ratings.history.time.max()) + 5
    recommend_here("--run", transformer_run, "--export-vectors", tmp_path / "v.npz", "--at", after)
    padded = asked_at(history.pad(torch.arange(30)), after)
    with torch.no_grad(), np.load(tmp_path / "v.npz", allow_pickle=False) as found:
        np.testing.assert_allclose(found["user_vectors"], saved.model.user_vectors(padded).numpy(), atol=1e-5)
        scores = saved.model.score(padded)
    flags = ("--audience-of", 900, "--format", "json", "--top-n", 30)
    listed = json.loads(recommend_here("--run", transformer_run, *flags, "--at", after))
    movie = saved.ids.movie_ids.index(900)
    for row, movies in enumerate(history.pad(torch.arange(30)).movie):
        scores[row, movies[history.pad(torch.arange(30)).mask[row]]] = -torch.inf
    chances = dict(zip(saved.ids.user_ids, scores.softmax(1)[:, movie].tolist(), strict=True))
    assert {one["id"]: one["probability"] for one in listed["users"]} == pytest.approx(
        {user: chance for user, chance in chances.items() if chance > 0}, abs=1e-5
    )


def test_users_whose_ratings_are_later_than_the_request_are_counted(transformer_run, capsys):
    """Only the requested users are counted."""
    recommend_here("--run", transformer_run, "--user", 4, "--at", "1990-01-01")
    assert "The user has ratings after --at: lists are as of the latest one." in capsys.readouterr().err
    recommend_here("--run", transformer_run, "--users", "1,4", "--at", "1990-01-01")
    assert "2 of 2 users have ratings after --at: lists are as of the latest one." in capsys.readouterr().err


@pytest.mark.parametrize(
    "time", ["tomorrow", "2003-02-30", "-5", "None", "99999999999999999999", "1e9", "2003", "20030228"]
)
def test_what_is_no_time_is_refused(transformer_run, time):
    assert refusal(transformer_run, f"--at={time}").endswith(
        "is no time: write 2003-02-28, 2003-02-28T20:00 or seconds since 1970."
    )


def test_times_of_a_new_user_are_those_of_the_data(tiny_run, tmp_path):
    """Clock times in any unit are accepted; a count such as 1, 2, 3 is refused, because the data has clock times."""
    path, found = tmp_path / "mine.csv", []
    for times in (
        ("978300000", "978300900"),
        ("978300000000", "978300900000"),
        ("2000-12-31 22:00:00", "2000-12-31 22:15:00"),
    ):
        path.write_text(f"userId,movieId,rating,timestamp\n7,2,4,{times[0]}\n7,9,4,{times[1]}\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Note)
            found.append(recommend_here("--run", tiny_run, "--ratings", path))
    assert found[0] == found[1] == found[2]
    path.write_text("userId,movieId,rating,timestamp\n7,2,4,1\n7,9,4,2\n")
    with pytest.raises(UserError, match="has times such as 2, but tiny such as 978"):
        recommend_here("--run", tiny_run, "--ratings", path)
