"""Lists for one user, several users and all users, in every format."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from asking import RATED, SCRIPT, ids_in
from helpers import ROOT, TINY_TRAINING, recommend_here, run_command, tiny_ratings, train_here

from Models.checkpoint import SavedModel
from Models.inference.named import find_users
from Models.inference.recommend import TopNRecommender
from utils.files import UserError


def ids_for(saved: SavedModel, user: int, top_n: int, include_seen: bool = False) -> list[int]:
    """The movies that the library recommends."""
    recommender = TopNRecommender(saved.model, saved.ids, top_n, include_seen)
    (found,) = recommender.for_users(find_users(saved.ids, [str(user)]), saved.ratings.history, saved.ratings.history)
    return [movie.id for movie in found.movies]


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
    """With --users, even a single user gets the format of several."""
    flags = ("--run", tiny_run, "--top-n", 3, "--format", name)
    every, some = (recommend_here(*flags, *asked).splitlines() for asked in (("--all-users",), ("--users", users)))
    header, every = (every[:1], every[1:]) if name == "csv" else ([], every)
    each = len(every) // 30
    order = [sorted(RATED).index(int(user)) for user in users.split(",")]
    assert some == header + [line for k in order for line in every[k * each : (k + 1) * each]]


def test_users_come_from_a_file(tiny_run, tmp_path, monkeypatch):
    """One id per line or several, with blank lines, a byte-order mark and Windows line ends; or from a pipe."""
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


def test_lists_of_a_model_of_ratings_say_so_and_from_which_run_they_are(run_script, tiny_run):
    for flags in (("--user", 1), ("--users", "1,4"), ("--all-users",)):
        said = run_script(SCRIPT, "--run", tiny_run, *flags).stderr
        assert "The model learned to predict ratings, not which movies are chosen" in said
        assert f"From {tiny_run}: Recommender, trained on tiny." in said


def test_the_columns_of_the_table_stand_below_their_names(tiny_encoder, tmp_path):
    """The columns line up whatever the length of ids and titles."""
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
