"""generate_recommendation.py: every format, several and new users, similar movies, filters, vectors, refusals."""

import csv
import dataclasses
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, SMALL, TINY_TRAINING, recommend_here, run_command, tiny_ratings, train_here, write_dat

from Models.checkpoint import SavedModel, load_model
from Models.configs import PRESETS
from Models.inference.named import find_users
from Models.inference.recommend import TopNRecommender, asked_at, vectors
from utils.files import Note, UserError

SCRIPT = "generate_recommendation.py"
RATED = {user: {row[1] for row in tiny_ratings() if row[0] == user} for user in range(1, 90, 3)}


@pytest.fixture(scope="module")
def saved(tiny_run) -> SavedModel:
    return load_model(tiny_run / "best.pt", torch.device("cpu"))


def ids_for(saved: SavedModel, user: int, top_n: int, include_seen: bool = False) -> list[int]:
    """The movies that the library recommends."""
    recommender = TopNRecommender(saved.model, saved.ids, top_n, include_seen)
    (found,) = recommender.for_users(find_users(saved.ids, [str(user)]), saved.known.history, saved.known.history)
    return [movie.id for movie in found.movies]


def rows_for(*flags: object) -> list[dict[str, str]]:
    """The rows of the CSV format."""
    return list(csv.DictReader(io.StringIO(recommend_here(*flags, "--format", "csv"))))


def changed_run(run: Path, folder: Path, change: Callable[[dict], object]) -> Path:
    """A copy of a run whose checkpoint is changed."""
    shutil.copytree(run, folder)
    checkpoint = torch.load(folder / "best.pt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, folder / "best.pt")
    return folder


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


def test_a_final_run_recommends_without_a_hint_to_train_one(tiny_run, tmp_path, capsys):
    final = train_here("--final", tiny_run, "--run", tmp_path / "final")
    line = recommend_here("--run", final, "--user", 4, "--top-n", 100).splitlines()[-1]
    assert line.startswith("Top 15 recommended movie IDs for user 4: [") and not set(ids_in(line)) & RATED[4]
    said = capsys.readouterr().err
    assert "Fewer than 100 movies are left." in said and "--final" not in said


def test_too_many_wanted_gives_all_that_are_left(tiny_run):
    text = recommend_here("--run", tiny_run, "--top-n", 100, "--format", "ids", "--user", 4)
    ids = [int(word) for word in text.split()]
    assert len(ids) == len(set(ids)) == 27 - 12 and not set(ids) & RATED[4]


def test_rated_movies_are_recommended_if_wanted(tiny_run, saved):
    text = recommend_here("--run", tiny_run, "--top-n", 27, "--format", "ids", "--user", 4, "--include-seen")
    ids = [int(word) for word in text.split()]
    assert ids == ids_for(saved, 4, 27, include_seen=True) and len(set(ids)) == 27


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
    asked = ("--users", "u7,u4", "--exclude", ",".join(ids[:3]), "--format", "ids")
    assert recommend_here("--run", run, *asked, "--top-n", 7).splitlines()[1].split() == ["u4", *ids[3:]]
    recommend_here("--run", run, "--export-vectors", tmp_path / "v.npz")
    found = np.load(tmp_path / "v.npz", allow_pickle=False)
    assert found["movie_ids"][0] == "m2" and sorted(found["user_ids"]) == sorted(f"u{user}" for user in RATED)
    with pytest.raises(UserError, match="own has no genres: leave out --genres"):
        recommend_here("--run", run, "--user", "u4", "--genres", "Drama")
    with pytest.raises(UserError, match="own has no release years: leave out --years"):
        recommend_here("--run", run, "--similar-to", "m2", "--years", 1990)


# --- several users and all -----------------------------------------------------------------------


def test_all_users_in_every_format(run_script, tiny_run, saved, tmp_path):
    expected = {user: ids_for(saved, user, 3) for user in RATED}
    flags = ("--run", tiny_run, "--all-users", "--top-n", 3)
    for name in ("csv", "json", "ids", "text"):
        said = recommend_here(*flags, "--format", name, "--output", tmp_path / name)
        assert said == f"Wrote the recommendations for 30 users to {tmp_path / name}.\n"
    assert run_script(SCRIPT, *flags).stdout == (tmp_path / "text").read_text()
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


@pytest.mark.parametrize("name", ["csv", "json", "ids", "text"])
@pytest.mark.parametrize("users", ["7,1, 85", "4"])
def test_several_users_are_those_of_all_in_the_order_that_was_asked(tiny_run, name, users):
    """A single one as well has the format of many."""
    flags = ("--run", tiny_run, "--top-n", 3, "--format", name)
    every, some = (recommend_here(*flags, *asked).splitlines() for asked in (("--all-users",), ("--users", users)))
    header, every = (every[:1], every[1:]) if name == "csv" else ([], every)
    each = len(every) // 30
    order = [sorted(RATED).index(int(user)) for user in users.split(",")]
    assert some == header + [line for k in order for line in every[k * each : (k + 1) * each]]


def test_users_come_from_a_file(tiny_run, tmp_path, monkeypatch):
    """One id per line or several, with blank lines, a byte-order mark and the line ends of Windows; or from a pipe."""
    monkeypatch.chdir(tmp_path)
    Path("users").write_bytes("\ufeff7,1\r\n\r\n 85\n\n".encode())
    asked = ("--run", tiny_run, "--format", "ids", "--users")
    assert recommend_here(*asked, "users", "--output", "lists") == "Wrote the recommendations for 3 users to lists.\n"
    assert Path("lists").read_text() == recommend_here(*asked, "7,1,85")
    if Path("/dev/fd").is_dir():
        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as pipe:
            pipe.write("7,1\n85")
        assert recommend_here(*asked, f"/dev/fd/{reading}") == Path("lists").read_text()
        os.close(reading)


def test_a_list_can_be_longer_than_the_name_of_a_file(tiny_run):
    users = (" " * 9 + ",").join(map(str, sorted(RATED)))
    asked = ("--run", tiny_run, "--format", "ids")
    assert recommend_here(*asked, "--users", users) == recommend_here(*asked, "--all-users") and len(users) > 255


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


def test_new_users_are_served_by_every_preset_but_the_original(any_run, tiny_run, tmp_path):
    """From liked movies, and from a file that says the same, with ratings or without."""
    preset, run = any_run
    if preset == "original":
        with pytest.raises(UserError, match="OriginalRecommender knows only the users that it was trained on: take a"):
            recommend_here("--run", run, "--liked", "2,9")
        return
    line = recommend_here("--run", run, "--liked", "2, 9,163", "--top-n", 5).splitlines()[-1]
    assert line.startswith("Top 5 recommended movie IDs for user new: [")
    ids = ids_in(line)
    assert len(set(ids)) == 5 and not set(ids) & {2, 9, 163}
    (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,5\n7,9,5\n7,163,5\n")
    (tmp_path / "chosen.csv").write_text("userId,movieId\n7,2\n7,9\n7,163\n")
    for name in ("mine.csv", "chosen.csv"):
        same = recommend_here("--run", run, "--ratings", tmp_path / name, "--top-n", 5, "--format", "ids")
        assert [int(word) for word in same.split()] == ids


def test_a_new_user_is_served_by_the_command(run_script, tiny_run, tmp_path):
    (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,2\n7,9,1\n")
    done = run_script(SCRIPT, "--run", tiny_run, "--ratings", "mine.csv")
    assert done.stdout.splitlines()[-1].startswith("Top 10 recommended movie IDs for user new: [")
    words = "mine.csv has ratings from 1 to 2, but tiny from 1 to 5: if they are on another scale, convert them."
    assert f"Note: {words}" in done.stderr


def test_ratings_that_may_be_on_another_scale_are_noted_once_they_are_all_low(tiny_run, tmp_path, recwarn):
    """In the lower half of the scale, which is below 3."""
    for high, n_notes in ((3, 0), (2.5, 1)):
        recwarn.clear()
        (tmp_path / "mine.csv").write_text(f"userId,movieId,rating\n7,2,1\n7,9,{high}\n")
        recommend_here("--run", tiny_run, "--ratings", tmp_path / "mine.csv")
        assert sum(issubclass(one.category, Note) for one in recwarn) == n_notes


def test_a_model_of_choices_takes_no_other_ratings(tiny_run, tmp_path):
    """All training ratings were 1; a file in which all are 1, or that has none, says the same."""

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


@pytest.fixture(scope="module")
def transformer_run(places, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("timed") / "run"
    return train_here(*places, "--run", run, "--preset", "transformer", "--epochs", 3, *SMALL["transformer"])


def test_lists_are_as_of_the_time_of_the_request(transformer_run):
    """In seconds or as a date; by default now, which is longer ago than anything in the data."""

    def scores(*flags: object) -> list[float]:
        found = json.loads(recommend_here("--run", transformer_run, "--user", 4, "--format", "json", *flags))
        return [movie["score"] for movie in found["movies"]]

    saved = load_model(transformer_run / "best.pt", torch.device("cpu"))
    assert saved.model.stats.longest_gap > 0
    (user,) = find_users(saved.ids, ["4"])
    latest = saved.known.history.pad(torch.tensor([user]))
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
    """One every ten minutes, the last a minute before, so that no gap of years lies between them and the request."""
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
    history, after = saved.known.history, int(saved.known.history.time.max()) + 5
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
    """Of the users that are asked for."""
    recommend_here("--run", transformer_run, "--user", 4, "--at", "1990-01-01")
    assert "The user has ratings after --at: lists are as of the latest one." in capsys.readouterr().err
    recommend_here("--run", transformer_run, "--users", "1,4", "--at", "1990-01-01")
    assert "2 of 2 users have ratings after --at: lists are as of the latest one." in capsys.readouterr().err


def test_an_encoding_that_nothing_is_read_with_is_refused(tiny_run):
    with pytest.raises(UserError, match="--encoding: no file is read with it"):
        recommend_here("--run", tiny_run, "--user", 4, "--encoding", "gbk")


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


# --- filters -------------------------------------------------------------------------------------

# Flags, and the movies of the small data set that pass them.
FILTERS = {
    "--genres musical": {163},
    "--genres Musical,WAR": {163, 900},
    "--years 1999-2000": {900, 901},
    "--years 1995": {163},
    "--years 1999-": {900, 901},
    "--years=-1961": {2, 9},
    "--exclude 2,9,16": {*range(23, 177, 7), 900, 901},
    "--candidates 900,2,9,16,23": {2, 9, 16, 23, 900},
    "--candidates some": {30, 37, 163},
    "--genres comedy --years 1960-1969 --exclude some --candidates 30,44,51,163,2": {2, 44, 51},
}
ASKED = {
    "a user": ("--user", 4),
    "some": ("--users", "4,1"),
    "all": ("--all-users",),
    "seen": ("--all-users", "--include-seen"),
    "new": ("--liked", "2,23"),
    "similar": ("--similar-to", 37),
}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("asked", ASKED)
def test_filtered_lists_are_the_whole_lists_filtered_by_hand(tiny_run, tmp_path, monkeypatch, asked, filters):
    monkeypatch.chdir(tmp_path)
    Path("some").write_text("30\n37,163\n", encoding="utf-8")
    flags = ("--run", tiny_run, "--top-n", 27, *ASKED[asked])
    expected, left = [], FILTERS[filters]
    for _, rows in itertools.groupby(rows_for(*flags), key=lambda row: row["userId"]):
        kept = [row for row in rows if int(row["movieId"]) in left]
        expected += [row | {"rank": str(rank)} for rank, row in enumerate(kept, start=1)]
    assert rows_for(*flags, *filters.split()) == expected


def test_the_most_popular_movies_are_those_that_pass_the_filters(tiny_run, capsys):
    """Three of them are left for user 4, fewer than wanted; a fourth has the user rated."""
    some = sorted(set(range(2, 177, 7)) - RATED[4])[:3]
    asked = ("--user", 4, "--candidates", ",".join(map(str, [*some, min(RATED[4])])))
    line = recommend_here("--run", tiny_run, *asked).splitlines()[-1]
    assert line.startswith("Top 3 recommended movie IDs for user 4: [") and set(ids_in(line)) == set(some)
    said = capsys.readouterr().err
    assert "Overlap with the 3 most popular movies that are left: 3 of 3." in said
    assert "Fewer than 10 movies are left." in said


def test_seen_movies_are_among_the_most_popular_where_they_are_recommended(tiny_run, capsys):
    recommend_here("--run", tiny_run, "--user", 4, "--top-n", 27, "--include-seen")
    assert "the 27 most popular movies that are left: 27 of 27." in capsys.readouterr().err


def test_a_user_who_has_rated_all_that_pass_has_an_empty_list(tiny_run, capsys):
    line = recommend_here("--run", tiny_run, "--user", 4, "--candidates", min(RATED[4])).splitlines()[-1]
    assert line == "Top 0 recommended movie IDs for user 4: []"
    said = capsys.readouterr().err
    assert "Fewer than 10 movies are left" in said and "overlap" not in said


def test_too_few_similar_movies_are_noted(tiny_run, tmp_path, capsys):
    said = recommend_here("--run", tiny_run, "--similar-to", 9, "--top-n", 100, "--output", tmp_path / "similar")
    assert said == f"Wrote the movies most similar to 9 to {tmp_path / 'similar'}.\n"
    assert (tmp_path / "similar").read_text().splitlines()[-1].startswith("Top 26 movie IDs most similar to movie 9")
    assert "Fewer than 100 other movies are left." in capsys.readouterr().err


# --- vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["all", "train"])
def test_exported_vectors_are_those_of_the_model(any_run, tmp_path, known):
    _, run = any_run
    target = tmp_path / "new/vectors.npz"
    said = recommend_here("--run", run, "--export-vectors", target, "--known", known)
    assert said == f"Wrote the vectors of 27 movies and 30 users to {target}.\n"
    assert list(target.parent.iterdir()) == [target]
    saved = load_model(run / "best.pt", torch.device("cpu"))
    history = saved.known.history if known == "all" else saved.known.training()
    expected = vectors(saved.model, saved.ids, history, int(time.time()))  # longer ago than the data's longest gap
    with np.load(target, allow_pickle=False) as found:
        assert sorted(found) == sorted(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_a_model_without_vectors_of_users_exports_those_of_movies(tiny_run, tmp_path, monkeypatch):
    monkeypatch.delattr("Models.Recommender.Recommender.user_vectors")
    said = recommend_here("--run", tiny_run, "--export-vectors", tmp_path / "v.npz")
    assert said.startswith("Wrote the vectors of 27 movies to ")
    assert sorted(np.load(tmp_path / "v.npz", allow_pickle=False)) == ["movie_ids", "movie_vectors"]


# --- refusals ------------------------------------------------------------------------------------

REQUESTS = {
    "--user": "4",
    "--users": "4,7",
    "--all-users": None,
    "--liked": "2",
    "--ratings": "one.csv",
    "--similar-to": "2",
    "--export-vectors": "v.npz",
}
UNUSED = {
    "--liked": ("--known all", "--known train", "--at 2003-02-28"),
    "--ratings": ("--known all", "--known train"),
    "--similar-to": ("--known all", "--known train", "--include-seen", "--predictions-from run", "--at 2003-02-28"),
    "--export-vectors": (
        *("--include-seen", "--predictions-from run", "--top-n 5", "--format csv", "--output file"),
        *("--genres Drama", "--years 1994", "--exclude 2", "--candidates 2"),
    ),
}
EMPTY = ("", " ", ",", "1,,2", "1,", "\n")


def refusal(run: Path, *flags: object) -> str:
    """The sentence with which a request is refused, before the run is looked at or afterwards."""
    with pytest.raises(UserError) as error:
        recommend_here("--run", run, *flags)
    return str(error.value)


def words_of(flag: str) -> tuple[str, ...]:
    return (flag,) if REQUESTS[flag] is None else (flag, REQUESTS[flag])


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(REQUESTS, 2)))
def test_one_request_at_a_time(one, other):
    said = refusal("nowhere", *words_of(other), *words_of(one))
    assert said.endswith("ask for different recommendations: give one of them.")
    assert said.startswith(f"{one} and {other} ")


@pytest.mark.parametrize(("flag", "unused"), [(flag, unused) for flag, all_of in UNUSED.items() for unused in all_of])
def test_flags_that_would_be_ignored_are_refused(flag, unused):
    said = refusal("nowhere", *words_of(flag), *unused.split())
    assert said == f"{flag} makes no use of {unused.split()[0]}: leave that out."


@pytest.mark.parametrize("flag", ["--users", "--liked", "--genres", "--exclude", "--candidates"])
@pytest.mark.parametrize("value", EMPTY, ids=repr)
def test_empty_values_of_lists_are_refused(tiny_run, flag, value):
    assert flag in refusal(tiny_run, flag, value)


@pytest.mark.parametrize("flag", ["--user", "--similar-to", "--years"])
def test_empty_values_are_refused(flag):
    assert refusal("nowhere", flag, " ") == f"{flag} is empty: give it a value or leave it out."


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--user", "2"), "User '2' has no ratings in tiny .*: for a new user, name some movies with --liked"),
        (("--user", "1,4,7"), "User '1,4,7' has no ratings in tiny .*: for several users, --users 1,4,7"),
        (("--user", "None"), "User 'None' has no ratings in tiny"),
        (("--users", "1,2,4,x"), "Users '2', 'x' have no ratings in tiny .*: for a new user"),
        (("--users", "1,5,6,8,9,11,12"), r"Users '5', '6', '8', '9', '11', \.\.\. have no ratings in tiny"),
        (("--users", "1,4,7,4,1"), "--users names 1, 4 more than once: name each user once"),
        (("--users", "users.txt"), "There is no file users.txt: check the path"),
        (("--users", "empty"), "empty is empty"),
        (("--users", "latin-1"), "latin-1, line 1: the byte 0xfc is not UTF-8"),
        (("--exclude", "gap"), "--exclude 'gap' lacks a value"),
        (("--liked", "2,5,77"), "tiny has no movie 5, 77"),
        (("--similar-to", 3), "tiny has no movie 3"),
        (("--ratings", "two.csv"), "two.csv holds 2 users"),
        (("--genres", "Drama,Noir"), "tiny has no genre Noir: choose from Comedy, Drama, Musical, War"),
        (("--exclude", "2,3"), "tiny has no movie 3"),
        (("--candidates", "2,3,4"), "tiny has no movie 3, 4"),
        (("--years", "1999-1990"), "--years '1999-1990' is no year or range: write 1994, 1990-1999 or 1990-"),
        (("--years", "abc"), "--years 'abc' is no year"),
        (("--years", "-"), "--years '-' is no year"),
        (("--years", "1990-1995-1999"), "is no year"),
        (("--years", "٢٠٠٠"), "is no year"),
        (("--years", "1900-1950"), "No movie of tiny passes the filters: change --genres, --years"),
        (("--genres", "War", "--exclude", "900", "--all-users"), "No movie of tiny passes the filters"),
        (("--similar-to", 9, "--candidates", 9), "The filters leave no movie but 9 itself"),
        (("--export-vectors", "vectors.npy"), "--export-vectors vectors.npy: name a file that ends in .npz"),
        (("--at", "2003-02-28"), "--at: this model takes no notice of when it is asked: leave it out"),
        (("--export-vectors", "vectors"), "--export-vectors vectors: name a file that ends in .npz"),
    ],
    ids=str,
)
def test_wrong_requests_are_named(tiny_run, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.csv").write_text("userId,movieId,rating\n7,2,5\n8,9,5\n")
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "gap").write_text("2\n,9\n")
    (tmp_path / "latin-1").write_bytes("ü\n".encode("latin-1"))
    with pytest.raises(UserError, match=words):
        recommend_here("--run", tiny_run, *flags)


@pytest.mark.parametrize(
    "time", ["tomorrow", "2003-02-30", "-5", "None", "99999999999999999999", "1e9", "2003", "20030228"]
)
def test_what_is_no_time_is_refused(transformer_run, time):
    assert refusal(transformer_run, f"--at={time}").endswith(
        "is no time: write 2003-02-28, 2003-02-28T20:00 or seconds since 1970."
    )


def test_refusals_of_the_command_are_one_sentence(run_script, tiny_run):
    done = run_script(SCRIPT, "--run", tiny_run, "--user", 4, "--liked", 2, code=1)
    assert done.stderr == "error: --user and --liked ask for different recommendations: give one of them.\n"
    assert done.stdout == ""


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
    """Two data sets may number their movies alike."""
    other = changed_run(tiny_run, tmp_path / "other", change)
    with pytest.raises(UserError, match="other users or movies"):
        recommend_here("--run", any_run[1], "--predictions-from", other)


def test_times_of_a_new_user_are_those_of_the_data(tiny_run, tmp_path):
    """Clock times in any unit are; a count such as 1, 2, 3 is not, as the data has the times of a clock."""
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


def test_a_new_users_ratings_need_no_user(tiny_run, tmp_path):
    with_user, without = tmp_path / "with.csv", tmp_path / "without.csv"
    with_user.write_text("userId,movieId,rating\n7,2,5\n7,9,1\n")
    without.write_text("movieId,rating\n2,5\n9,1\n")
    lists = [recommend_here("--run", tiny_run, "--ratings", path) for path in (with_user, without)]
    assert lists[0] == lists[1]


def test_lists_of_a_model_of_ratings_say_so_and_from_which_run_they_are(run_script, tiny_run):
    for flags in (("--user", 1), ("--users", "1,4"), ("--all-users",)):
        said = run_script(SCRIPT, "--run", tiny_run, *flags).stderr
        assert "The model learned to predict ratings, not which movies are chosen" in said
        assert f"From {tiny_run}: Recommender, trained on tiny." in said


def test_the_columns_of_the_table_stand_below_their_names(tiny_encoder, tmp_path):
    """Whatever the length of ids and titles."""
    data, features = tmp_path / "own", tmp_path / "own.pkl"
    data.mkdir()
    long = "0123456789" * 2
    rows = "".join(f"u{u},{long}{m},{r}\n" for u, m, r, _ in tiny_ratings())
    (data / "ratings.csv").write_text("userId,movieId,rating\n" + rows)
    movies = "".join(f"{long}{m},Film {m}\n" for m in sorted({row[1] for row in tiny_ratings()}))
    (data / "movies.csv").write_text("movieId,title\n" + movies)
    run_command("utils/BERT.py", "--data", data, "--encoder", tiny_encoder, "--features", features)
    run = train_here("--data", data, "--features", features, "--run", tmp_path / "run", *TINY_TRAINING)
    head, *lines = recommend_here("--run", run).splitlines()[:11]  # of user u1, the first of the data
    assert all(line[head.index("title") - 2 :].startswith("  Film") for line in lines)
    assert all(line[: head.index("title")].endswith(f"{line.split()[1]}  ") for line in lines)


def test_predictions_for_other_people_of_the_same_ids_are_refused(places, tiny_features, tmp_path):
    """Their movies are the same; their ratings are not."""
    shifted = [(user, 7 * ((movie // 7 + 12) % 25) + 2, rating, time) for user, movie, rating, time in tiny_ratings()]
    folder = write_dat(tmp_path / "tiny", shifted)
    flags = ("--preset", "autoencoder", *SMALL["autoencoder"], "--epochs", 1)
    run = train_here(*places, *flags, "--run", tmp_path / "ranking")
    other = train_here("--data", folder, "--features", tiny_features, "--run", tmp_path / "other", *TINY_TRAINING)
    with pytest.raises(UserError, match="other users or movies"):
        recommend_here("--run", run, "--predictions-from", other)
