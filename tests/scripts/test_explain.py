"""Reasons beside a list: for every model, exactly what the scores lose without a rating."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch
from helpers import SMALL, TINY_TRAINING, recommend_here, train_here

from Models.checkpoint import load_model
from Models.configs import PRESETS
from Models.inference.explain import in_common
from Models.inference.named import find_users
from Models.inference.recommend import asked_at
from utils.files import UserError


@pytest.fixture(scope="module", params=PRESETS)
def any_run(request, places, tmp_path_factory) -> tuple[str, Path]:
    run, flags = tmp_path_factory.mktemp("explained") / "run", SMALL[request.param]
    return request.param, train_here(*places, "--run", run, "--preset", request.param, "--epochs", 20, *flags)


def test_without_a_rating_the_score_falls_by_the_figure(any_run):
    preset, run = any_run
    found = json.loads(recommend_here("--run", run, "--user", 4, "--explain", "--format", "json"))
    saved = load_model(run / "best.pt", torch.device("cpu"))
    (user,) = find_users(saved.ids, ["4"])
    history = asked_at(saved.ratings.history.pad(torch.tensor([user])), int(time.time()))
    n, reasons = int(history.mask.sum()), 0
    unit = saved.model.stats.scale.unit if saved.model.config.task == "rating" else 1.0

    def scores(kept: list[int]) -> torch.Tensor:
        columns = {name: getattr(history, name)[:, kept] for name in ("movie", "rating", "time", "mask")}
        with torch.no_grad():
            return saved.model.score(dataclasses.replace(history, **columns))[0]

    whole = scores(list(range(n)))
    without = {k: whole - scores([j for j in range(n) if j != k]) for k in range(n)}
    for movie in found["movies"]:
        index = saved.ids.movie_ids.index(movie["id"])
        falls = {saved.ids.movie_ids[int(history.movie[0, k])]: float(without[k][index]) * unit for k in range(n)}
        highest = sorted((fall for fall in falls.values() if fall > 1e-4), reverse=True)[:3]
        named = [reason["fall"] for reason in movie["reasons"] if reason["fall"] > 1e-4]
        assert named == pytest.approx(highest, abs=1e-6, rel=1e-3)
        for reason in movie["reasons"]:
            assert falls[reason["id"]] == pytest.approx(reason["fall"], abs=1e-6, rel=1e-3)
            assert reason["title"] == saved.ids.titles[saved.ids.movie_ids.index(reason["id"])]
            reasons += 1
    assert (reasons > 0) == (preset != "original")


def test_reasons_stand_below_each_movie(tiny_run):
    lines = recommend_here("--run", tiny_run, "--user", 4, "--explain", "--top-n", 5).splitlines()
    plain = recommend_here("--run", tiny_run, "--user", 4, "--top-n", 5).splitlines()
    assert [line for line in lines if not line.strip().startswith("+")] == plain
    reasons = [line for line in lines if line.strip().startswith("+")]
    assert reasons and all(line.strip().startswith("+0.") and ", rated " in line for line in reasons)


def test_a_new_users_list_is_explained_by_what_they_like(tiny_run):
    found = json.loads(recommend_here("--run", tiny_run, "--liked", "2,9", "--explain", "--format", "json"))
    named = {reason["id"] for movie in found["movies"] for reason in movie["reasons"]}
    assert named and named <= {2, 9}


def test_what_movies_have_in_common_is_of_the_models_blocks(places, tmp_path):
    run = train_here(*places, "--run", tmp_path / "run", *TINY_TRAINING, "--blocks", "title")
    one = load_model(run / "best.pt", torch.device("cpu"))
    assert in_common(one, 0, 0) == []
    run = train_here(*places, "--run", tmp_path / "genres", *TINY_TRAINING)
    other = load_model(run / "best.pt", torch.device("cpu"))
    movie = next(k for k, genres in enumerate(other.ids.genres) if "|" in genres)
    assert in_common(other, movie, movie) == sorted(other.ids.genres[movie].split("|"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--include-seen",), "--explain and --include-seen: what a user has rated needs no reasons"),
        (("--format", "csv"), "--format csv has no room for reasons: take text or json"),
        (("--format", "ids"), "--format ids has no room for reasons: take text or json"),
        (("--all-users",), "--explain: the text of several users has no room for reasons, take --format json"),
        (("--similar-to", 2), "--similar-to does not support --explain: leave it out"),
    ],
    ids=str,
)
def test_lists_without_room_for_reasons_are_refused(tiny_run, flags, words):
    with pytest.raises(UserError, match=words):
        recommend_here("--run", tiny_run, "--explain", *flags)
