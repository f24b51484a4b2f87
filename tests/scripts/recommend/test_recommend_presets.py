"""What generate_recommendation.py gives with every preset: lists of new users, similar movies, vectors, predictions."""

import csv
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import SCRIPT, ids_in
from helpers import SMALL, TINY_TRAINING, recommend_here, tiny_ratings, train_here, write_dat

from Models.checkpoint import load_model
from Models.configs import PRESETS
from Models.inference.named import find_users
from Models.inference.recommend import vectors
from utils.files import Note, UserError


def changed_run(run: Path, folder: Path, change: Callable[[dict], object]) -> Path:
    """A copy of a run with a changed checkpoint."""
    shutil.copytree(run, folder)
    checkpoint = torch.load(folder / "best.pt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, folder / "best.pt")
    return folder


@pytest.fixture(scope="module", params=PRESETS)
def any_run(request, places, tmp_path_factory) -> tuple[str, Path]:
    """A preset and a run of it."""
    run, flags = tmp_path_factory.mktemp("presets") / "run", SMALL[request.param]
    return request.param, train_here(*places, "--run", run, "--preset", request.param, "--epochs", 3, *flags)


def test_new_users_are_served_by_every_preset_but_the_original(any_run, tiny_run, tmp_path):
    """Liked movies, and a file that says the same with or without ratings, give the same list."""
    preset, run = any_run
    if preset == "original":
        with pytest.raises(UserError, match="OriginalRecommender knows only the users that it was trained on: use a"):
            recommend_here("--run", run, "--liked", "2,9")
        return
    line = recommend_here("--run", run, "--liked", "2, 9,163", "--top-n", 5).splitlines()[-1]
    assert line.startswith("Top 5 recommended movie IDs for user new: [")
    ids = ids_in(line)
    assert len(set(ids)) == 5 and not set(ids) & {2, 9, 163}
    (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,5\n7,9,5\n7,163,5\n")
    (tmp_path / "chosen.csv").write_text("userId,movieId\n7,2\n7,9\n7,163\n")
    (tmp_path / "blanks.csv").write_text("userId,movieId,rating\n7, 2, 5\n7, 9, 5\n7, 163, 5\n7,163,5\n")
    for name in ("mine.csv", "chosen.csv", "blanks.csv"):
        same = recommend_here("--run", run, "--ratings", tmp_path / name, "--top-n", 5, "--format", "ids")
        assert [int(word) for word in same.split()] == ids


def test_a_new_user_is_served_by_the_command(run_script, tiny_run, tmp_path):
    (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,2\n7,9,1\n")
    done = run_script(SCRIPT, "--run", tiny_run, "--ratings", "mine.csv")
    assert done.stdout.splitlines()[-1].startswith("Top 10 recommended movie IDs for user new: [")
    words = "mine.csv has ratings from 1 to 2, but tiny from 1 to 5: if they are on another scale, convert them."
    assert f"Note: {words}" in done.stderr


def test_ratings_that_may_be_on_another_scale_are_noted_once_they_are_all_low(tiny_run, tmp_path, recwarn):
    """Low means in the lower half of the scale, which is below 3."""
    for high, n_notes in ((3, 0), (2.5, 1)):
        recwarn.clear()
        (tmp_path / "mine.csv").write_text(f"userId,movieId,rating\n7,2,1\n7,9,{high}\n")
        recommend_here("--run", tiny_run, "--ratings", tmp_path / "mine.csv")
        assert sum(issubclass(one.category, Note) for one in recwarn) == n_notes


def test_a_model_of_choices_takes_no_other_ratings(tiny_run, tmp_path):
    """All training ratings were 1; a file in which all are 1 means the same as one without ratings."""

    def choices(checkpoint: dict) -> None:
        checkpoint["stats"]["scale"] = {"low": 1.0, "high": 1.0}

    run = changed_run(tiny_run, tmp_path / "choices", choices)
    found = {}
    for name, rows in {"ones": ",rating\n7,2,1\n7,9,1\n", "none": "\n7,2\n7,9\n"}.items():
        (tmp_path / name).write_text("userId,movieId" + rows)
        found[name] = recommend_here("--run", run, "--ratings", tmp_path / name)
    assert found["ones"] == found["none"] == recommend_here("--run", run, "--liked", "2,9")
    (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,4\n7,9,1\n")
    with pytest.raises(UserError, match=r"trained on choices without ratings: leave the column of ratings out of .*mi"):
        recommend_here("--run", run, "--ratings", tmp_path / "mine.csv")
    with pytest.raises(
        UserError, match=r"has ratings from 0\.5 to 5, but tiny from 1 to 5: give ratings on that scale"
    ):
        (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,5\n7,9,0.5\n")
        recommend_here("--run", tiny_run, "--ratings", tmp_path / "mine.csv")


def test_lists_of_similar_movies_name_the_movie_and_no_user(tiny_run):
    flags = ("--run", tiny_run, "--similar-to", 9, "--top-n", 3)
    content = json.loads(recommend_here(*flags, "--format", "json"))
    assert list(content) == ["movie", "movies"] and content["movie"] == 9
    rows = list(csv.DictReader(recommend_here(*flags, "--format", "csv").splitlines()))
    assert list(rows[0])[:3] == ["similarTo", "rank", "movieId"] and {row["similarTo"] for row in rows} == {"9"}
    ids = [movie["id"] for movie in content["movies"]]
    assert [int(row["movieId"]) for row in rows] == ids == ids_in(recommend_here(*flags).splitlines()[-1])


def test_similar_movies_are_those_of_the_highest_cosine(any_run):
    _, run = any_run
    saved = load_model(run / "best.pt", torch.device("cpu"))
    vectors = torch.nn.functional.normalize(saved.model.movie_vectors().detach())
    cosine = (vectors @ vectors[1]).tolist()
    others = sorted((i for i in range(27) if i != 1), key=lambda i: -cosine[i])
    expected = [saved.ids.movie_ids[i] for i in others[:4]]
    lines = recommend_here("--run", run, "--similar-to", 9, "--top-n", 4).splitlines()
    assert lines[0].split() == ["rank", "id", "title", "cosine", "genres"]
    assert lines[-1] == f"Top 4 movie IDs most similar to movie 9: {expected}"


@pytest.mark.parametrize("known", ["all", "train"])
def test_exported_vectors_are_those_of_the_model(any_run, tmp_path, known):
    _, run = any_run
    target = tmp_path / "new/vectors.npz"
    said = recommend_here("--run", run, "--export-vectors", target, "--known", known)
    assert said == f"Wrote the vectors of 27 movies and 30 users to {target}.\n"
    assert list(target.parent.iterdir()) == [target]
    saved = load_model(run / "best.pt", torch.device("cpu"))
    history = saved.ratings.history if known == "all" else saved.ratings.training()
    expected = vectors(saved.model, saved.ids, history, int(time.time()))  # further off than any gap in the data
    with np.load(target, allow_pickle=False) as found:
        assert sorted(found) == sorted(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_a_model_without_vectors_of_users_exports_those_of_movies(tiny_run, tmp_path, monkeypatch):
    monkeypatch.delattr("Models.Recommender.Recommender.user_vectors")
    said = recommend_here("--run", tiny_run, "--export-vectors", tmp_path / "v.npz")
    assert said.startswith("Wrote the vectors of 27 movies to ")
    assert sorted(np.load(tmp_path / "v.npz", allow_pickle=False)) == ["movie_ids", "movie_vectors"]


def test_predictions_stand_beside_a_ranking(any_run, tiny_run, saved):
    """The movies are those of the ranking, the predictions those of the other run; --run must not be a rating model."""
    preset, run = any_run
    asked = ("--run", run, "--predictions-from", tiny_run)
    if PRESETS[preset].ranking is None:
        with pytest.raises(UserError, match="needs a run that predicts ratings, beside a --run that ranks"):
            recommend_here(*asked)
        return
    both, alone = (
        list(csv.DictReader(io.StringIO(recommend_here(*flags, "--all-users", "--format", "csv"))))
        for flags in (asked, asked[:2])
    )
    assert [{name: value for name, value in row.items() if name != "prediction"} for row in both] == alone
    scores = saved.model.score(saved.ratings.history.pad(torch.arange(30))).detach().clamp(1, 5)
    for row in both:
        user, movie = find_users(saved.ids, [row["userId"]])[0], saved.ids.movie_ids.index(int(row["movieId"]))
        assert float(row["prediction"]) == pytest.approx(float(scores[user, movie]), abs=1e-4)
    new = json.loads(recommend_here(*asked, "--liked", "2,9", "--format", "json"))
    assert all(1 <= movie["prediction"] <= 5 and "score" in movie for movie in new["movies"])


def of_other_movies(checkpoint: dict) -> None:
    checkpoint["ids"]["movie_ids"].reverse()


def with_other_titles(checkpoint: dict) -> None:
    checkpoint["ids"]["titles"][0] = "Another film (1960)"


@pytest.mark.parametrize("any_run", ["gru"], indirect=True)
@pytest.mark.parametrize("change", [of_other_movies, with_other_titles])
def test_predictions_for_other_movies_are_refused(any_run, tiny_run, tmp_path, change):
    """Two data sets may use the same ids for different movies."""
    other = changed_run(tiny_run, tmp_path / "other", change)
    with pytest.raises(UserError, match="other users or movies"):
        recommend_here("--run", any_run[1], "--predictions-from", other)


def test_a_new_users_ratings_need_no_user(tiny_run, tmp_path):
    with_user, without = tmp_path / "with.csv", tmp_path / "without.csv"
    with_user.write_text("userId,movieId,rating\n7,2,5\n7,9,1\n")
    without.write_text("movieId,rating\n2,5\n9,1\n")
    lists = [recommend_here("--run", tiny_run, "--ratings", path) for path in (with_user, without)]
    assert lists[0] == lists[1]


def test_predictions_for_other_people_of_the_same_ids_are_refused(places, tiny_features, tmp_path):
    """The movies are the same; the ratings are not."""
    shifted = [(user, 7 * ((movie // 7 + 12) % 25) + 2, rating, time) for user, movie, rating, time in tiny_ratings()]
    folder = write_dat(tmp_path / "tiny", shifted)
    flags = ("--preset", "autoencoder", *SMALL["autoencoder"], "--epochs", 1)
    run = train_here(*places, *flags, "--run", tmp_path / "ranking")
    other = train_here("--data", folder, "--features", tiny_features, "--run", tmp_path / "other", *TINY_TRAINING)
    with pytest.raises(UserError, match="other users or movies"):
        recommend_here("--run", run, "--predictions-from", other)
