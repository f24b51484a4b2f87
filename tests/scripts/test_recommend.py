"""generate_recommendation.py: every format, new users, similar movies, and recommendations without rated movies."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, SMALL, TINY_TRAINING, recommend_here, run_command, tiny_ratings, train_here, write_dat

from Models.checkpoint import SavedModel, load_model
from Models.configs import PRESETS
from Models.recommend import TopNRecommender, find_user
from utils.files import UserError

SCRIPT = "generate_recommendation.py"
RATED = {user: {row[1] for row in tiny_ratings() if row[0] == user} for user in range(1, 90, 3)}


@pytest.fixture(scope="module")
def saved(tiny_run) -> SavedModel:
    return load_model(tiny_run / "best.pt", torch.device("cpu"))


def ids_for(saved: SavedModel, user: int, top_n: int, include_seen: bool = False) -> list[int]:
    """The movies that the library recommends."""
    recommender = TopNRecommender(saved.model, saved.ids, top_n, include_seen)
    (found,) = recommender.for_users([find_user(saved.ids, str(user))], saved.known.history, saved.known.history)
    return [movie.id for movie in found.movies]


def ids_in(line: str) -> list[int]:
    """The ids in the last line of the text format."""
    return json.loads(line.split(": ")[1])


# --- one user ------------------------------------------------------------------------------------


def test_the_line_of_the_original_is_the_last_one(run_script, tiny_run, saved):
    done = run_script(SCRIPT, "--run", tiny_run)
    lines = done.stdout.splitlines()
    assert lines[-1] == f"Top 10 recommended movie IDs for user 1: {ids_for(saved, 1, 10)}"
    assert lines[0].split() == ["rank", "id", "title", "prediction", "genres"]
    assert len(lines) == 1 + 10 + 1 + 1
    assert "learned to predict ratings" in done.stderr and "most popular" in done.stderr
    assert "python train.py --preset autoencoder" in done.stderr
    assert "trained on 180 of 360 ratings" in done.stderr and "python train.py --final" in done.stderr


def test_a_final_run_recommends_without_a_hint_to_train_one(run_script, tiny_run, tmp_path):
    final = train_here("--final", tiny_run, "--run", tmp_path / "final")
    done = run_script(SCRIPT, "--run", final, "--user", 4, "--top-n", 100)
    line = done.stdout.splitlines()[-1]
    assert line.startswith("Top 15 recommended movie IDs for user 4: [") and not set(ids_in(line)) & RATED[4]
    assert "fewer than 100 movies are left" in done.stderr
    assert "--final" not in done.stderr


def test_too_many_wanted_gives_all_that_are_left(tiny_run):
    text = recommend_here("--run", tiny_run, "--top-n", 100, "--format", "ids", "--user", 4)
    ids = [int(word) for word in text.split()]
    assert len(ids) == len(set(ids)) == 27 - 12 and not set(ids) & RATED[4]


def test_rated_movies_are_recommended_if_wanted(tiny_run, saved):
    text = recommend_here("--run", tiny_run, "--top-n", 27, "--format", "ids", "--user", 4, "--include-seen")
    ids = [int(word) for word in text.split()]
    assert ids == ids_for(saved, 4, 27, include_seen=True) and len(set(ids)) == 27


def test_an_unknown_user_is_named(run_script, tiny_run):
    done = run_script(SCRIPT, "--run", tiny_run, "--user", "2", code=1)
    assert "User '2' is not in tiny" in done.stderr and "new user" in done.stderr
    assert done.stdout == ""


def test_a_run_that_is_not_finished_is_not_used(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run/test_metrics.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        recommend_here("--run", tmp_path / "run")


def test_string_ids_come_back_as_they_are(tiny_encoder, tmp_path):
    data, features = tmp_path / "own", tmp_path / "f/movie_bert_dict.pkl"
    data.mkdir()
    rows = "".join(f"u{u}\tm{m}\t{r}\n" for u, m, r, _ in tiny_ratings())
    (data / "own.inter").write_text("user_id:token\titem_id:token\trating:float\n" + rows)
    movies = "".join(f"m{i * 7 + 2}\tFilm {i}\n" for i in range(25))
    (data / "own.item").write_text("item_id:token\tmovie_title:token_seq\n" + movies)
    run_command("utils/BERT.py", "--data", data, "--encoder", tiny_encoder, "--features", features)
    run = train_here("--data", data, "--features", features, "--run", tmp_path / "run", *TINY_TRAINING)
    ids = recommend_here("--run", run, "--user", "u4", "--format", "ids").split()
    assert len(ids) == 10 and not set(ids) & {f"m{m}" for m in RATED[4]} and all(i.startswith("m") for i in ids)
    with pytest.raises(UserError, match="its ids are strings such as u1"):
        recommend_here("--run", run, "--user", 4)


# --- all users -----------------------------------------------------------------------------------


def test_all_users_in_every_format(run_script, tiny_run, saved, tmp_path):
    expected = {user: ids_for(saved, user, 3) for user in RATED}
    for name in ("csv", "json", "ids", "text"):
        flags = ("--run", tiny_run, "--all-users", "--top-n", 3, "--format", name, "--output", tmp_path / name)
        assert "30 users" in run_script(SCRIPT, *flags).stdout
    found: dict[int, list[int]] = {}
    for row in csv.DictReader(io.StringIO((tmp_path / "csv").read_text())):
        found.setdefault(int(row["userId"]), []).append(int(row["movieId"]))
    assert found == expected
    found = {}
    for line in (tmp_path / "json").read_text().splitlines():
        content = json.loads(line)
        found[content["user"]] = [movie["id"] for movie in content["movies"]]
    assert found == expected
    lines = [[int(word) for word in line.split()] for line in (tmp_path / "ids").read_text().splitlines()]
    assert {user: ids for user, *ids in lines} == expected
    lines = [f"Top 3 recommended movie IDs for user {user}: {ids}" for user, ids in expected.items()]
    assert (tmp_path / "text").read_text().splitlines() == lines


def test_a_reader_that_has_seen_enough_is_no_fault(tiny_run):
    words = f"{sys.executable} {ROOT / SCRIPT} --run {tiny_run} --all-users --top-n 27 --format csv | head -n 1"
    done = subprocess.run(words, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("userId,rank") and "rror" not in done.stderr


# --- new users and similar movies ----------------------------------------------------------------


@pytest.fixture(scope="module", params=PRESETS)
def any_run(request, places, tmp_path_factory) -> tuple[str, Path]:
    """A preset and a run of it."""
    run, flags = tmp_path_factory.mktemp("presets") / "run", SMALL[request.param]
    return request.param, train_here(*places, "--run", run, "--preset", request.param, "--epochs", 3, *flags)


def test_new_users_are_served_by_every_preset(run_script, any_run, tmp_path):
    """From liked movies, and from a file of ratings that says the same."""
    _, run = any_run
    done = run_script(SCRIPT, "--run", run, "--liked", "2, 9,163", "--top-n", 5)
    line = done.stdout.splitlines()[-1]
    assert line.startswith("Top 5 recommended movie IDs for user new: [")
    ids = ids_in(line)
    assert len(set(ids)) == 5 and not set(ids) & {2, 9, 163}
    (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,5\n7,9,5\n7,163,5\n")
    same = recommend_here("--run", run, "--ratings", tmp_path / "mine.csv", "--top-n", 5, "--format", "ids")
    assert [int(word) for word in same.split()] == ids


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


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--liked", "2,5,77"), "tiny has no movie 5, 77"),
        (("--similar-to", 3), "tiny has no movie 3"),
        (("--liked", 2, "--all-users"), "--all-users and --liked ask for different recommendations"),
        (("--liked", 2, "--ratings", "two.csv"), "--liked and --ratings ask for different recommendations"),
        (("--ratings", "two.csv"), "two.csv holds 2 users"),
    ],
    ids=str,
)
def test_wrong_requests_are_named(tiny_run, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.csv").write_text("userId,movieId,rating\n7,2,5\n8,9,5\n")
    with pytest.raises(UserError, match=words):
        recommend_here("--run", tiny_run, *flags)


# --- predictions beside a ranking ----------------------------------------------------------------


def test_predictions_stand_beside_a_ranking(any_run, tiny_run, saved):
    """The movies are those of the ranking, the predictions those of the other run; a rating model is refused."""
    preset, run = any_run
    asked = ("--run", run, "--predictions-from", tiny_run)
    if PRESETS[preset].ranking is None:
        with pytest.raises(UserError, match="takes a run that predicts ratings, beside a --run that ranks"):
            recommend_here(*asked)
        return
    both, alone = (
        list(csv.DictReader(io.StringIO(recommend_here(*flags, "--all-users", "--format", "csv"))))
        for flags in (asked, asked[:2])
    )
    assert [{name: value for name, value in row.items() if name != "prediction"} for row in both] == alone
    scores = saved.model.score(saved.known.history.pad(torch.arange(30))).detach().clamp(1, 5)
    for row in both:
        user, movie = find_user(saved.ids, row["userId"]), saved.ids.movie_ids.index(int(row["movieId"]))
        assert float(row["prediction"]) == pytest.approx(float(scores[user, movie]), abs=1e-4)
    new = json.loads(recommend_here(*asked, "--liked", "2,9", "--format", "json"))
    assert all(1 <= movie["prediction"] <= 5 and "score" in movie for movie in new["movies"])


def test_predictions_for_other_movies_are_refused(run_script, places, tiny_encoder, tiny_run, tmp_path):
    """Of other ids, and of the same ids with other titles: both data sets number their movies alike."""
    ranking = ("--preset", "gru", "--epochs", 1, *SMALL["gru"])
    run = train_here(*places, *ranking, "--run", tmp_path / "ranking")
    shutil.copytree(tiny_run, tmp_path / "other")
    checkpoint = torch.load(tmp_path / "other/best.pt", weights_only=True)
    checkpoint["ids"]["movie_ids"].reverse()
    torch.save(checkpoint, tmp_path / "other/best.pt")
    with pytest.raises(UserError, match="other users or movies"):
        recommend_here("--run", run, "--predictions-from", tmp_path / "other")

    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    text = (folder / "movies.dat").read_text(encoding="latin-1").replace("Film", "Another film")
    (folder / "movies.dat").write_text(text, encoding="latin-1")
    renamed = ("--data", folder, "--features", tmp_path / "movie_bert_dict.pkl")
    run_command("utils/BERT.py", *renamed, "--encoder", tiny_encoder)
    run = train_here(*renamed, *ranking, "--run", tmp_path / "renamed")
    done = run_script(SCRIPT, "--run", run, "--predictions-from", tiny_run, code=1)
    assert "other users or movies" in done.stderr
