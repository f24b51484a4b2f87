"""Figures that used to be wrong without a word: each case as small as it was found."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_TRAINING, tiny_ratings, write_dat
from test_history import batch_of, made
from test_train import rows_of, states_are_equal, without_times

from Models.dataLoader import load_data, note_on_order, split_fingerprint, split_rows
from Models.histories import Past
from Models.recommend import scores_of_known
from utils.files import UserError
from utils.readers import read_dataset

RATIOS = (0.5, 0.3, 0.2)


def shuffled(folder) -> None:
    lines = (folder / "ratings.dat").read_text().splitlines(keepends=True)
    (folder / "ratings.dat").write_text("".join(np.random.default_rng(1).permutation(lines)))


@pytest.mark.parametrize("script", ["ablation.py", "compare_baselines.py"])
def test_results_made_on_other_ratings_are_not_reused(run_script, tiny_features, tmp_path, script):
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    flags = ("--data", folder, "--features", tiny_features, "--output", tmp_path / "out", "--seeds", 0)
    flags += ("--epochs", 1) if script == "ablation.py" else ("--models", "Recommender", "--ratios", 0.5, 0.3, 0.2)
    run_script("resultAnalyze/" + script, *flags)
    shuffled(folder)
    assert "another protocol" in run_script("resultAnalyze/" + script, *flags, code=1).stderr
    (tmp_path / "out/protocol.json").unlink()
    (tmp_path / "out/comparison.csv").unlink(missing_ok=True)
    assert "other ratings" in run_script("resultAnalyze/" + script, *flags, code=1).stderr


def test_predictions_for_users_without_a_history_depend_on_their_row_alone(data):
    """In any order, and beside any other rows."""
    split = split_rows(data, "cold-users", RATIOS)
    model = made(data, split.train)
    rows = split.test[~np.isin(data.user[split.test], data.user[split.train])]
    assert len(rows) > 20
    together = model(batch_of(data, rows))[0]
    turned = model(batch_of(data, rows[::-1].copy()))[0].flip(0)
    alone = torch.cat([model(batch_of(data, rows[k : k + 1]))[0] for k in range(len(rows))])
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    batch = batch_of(data, rows)
    batch["time"][0] += 300 * 86_400
    torch.testing.assert_close(model(batch)[0][1:], together[1:], atol=1e-5, rtol=1e-5)


def test_a_training_on_given_files_is_resumed(run_script, tiny, tiny_features, tmp_path):
    """The files' names are those of the data's folder; the training is resumed from another folder."""
    folder = write_dat(tmp_path / "data", tiny_ratings())
    lines = (folder / "ratings.dat").read_text().splitlines(keepends=True)
    (folder / "u1.base").write_text("".join(lines[:300]))
    (folder / "u1.test").write_text("".join(lines[300:]))
    given = ("--data", folder, "--features", tiny_features, "--train-file", "u1.base", "--test-file", "u1.test")
    run_script("train.py", *given, *TINY_TRAINING, "--run", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    for name in ("test_metrics.json", "test_predictions.csv", "last.pt", "best.pt", "metrics.csv"):
        (tmp_path / "run" / name).unlink()
    run_script("train.py", "--resume", tmp_path / "run")
    assert without_times(tmp_path / "run") == without_times(tmp_path / "whole")
    assert states_are_equal(tmp_path / "run/last.pt", tmp_path / "whole/last.pt")


def test_the_split_has_a_fingerprint(tiny_run, data, tiny_features, tmp_path):
    """That of the rows themselves: equal where the same ratings are tested, whatever the order of the file."""
    split = split_rows(data, "random", RATIOS)
    stored = json.loads((tiny_run / "test_metrics.json").read_text())["split_sha256"]
    assert split_fingerprint(data, split) == stored
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    shuffled(folder)
    other = load_data(folder, tiny_features)
    assert split_fingerprint(other, split_rows(other, "random", RATIOS)) != stored
    assert split_fingerprint(other, split_rows(other, "user-time", RATIOS)) == split_fingerprint(
        data, split_rows(data, "user-time", RATIOS)
    )


def test_an_order_of_the_file_that_stands_in_for_times_is_noted(tiny_features, tmp_path):
    rows = [(user, movie, rating, time // 1000) for user, movie, rating, time in tiny_ratings()]
    by_id = load_data(write_dat(tmp_path / "sorted", sorted(rows)), tiny_features)
    assert "in 100% of these" in note_on_order(by_id)
    assert note_on_order(load_data(write_dat(tmp_path / "drawn", rows), tiny_features)) is None
    assert note_on_order(load_data(write_dat(tmp_path / "timed", tiny_ratings()), tiny_features)) is None


@pytest.mark.parametrize("name", ["ratings.dat", "movies.dat", "users.dat"])
@pytest.mark.parametrize("start", [0, 0.4, 0.9])
def test_holes_in_files_are_refused(tmp_path, name, start):
    folder = write_dat(tmp_path / "ml", tiny_ratings())
    content = (folder / name).read_bytes()
    first = int(start * len(content))
    hole = content[:first] + bytes(len(content[first : first + 400])) + content[first + 400 :]
    (folder / name).write_bytes(hole)
    with pytest.raises(UserError, match=f"{name}, line [0-9]+: there are NUL bytes"):
        read_dataset(folder)


def test_stars_of_movies_with_other_titles_are_refused(run_script, tiny_encoder, tiny_run, tmp_path):
    """Both data sets number their movies alike."""
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    text = (folder / "movies.dat").read_text(encoding="latin-1").replace("Film", "Another film")
    (folder / "movies.dat").write_text(text, encoding="latin-1")
    places = ("--data", folder, "--features", tmp_path / "movie_bert_dict.pkl")
    run_script("utils/BERT.py", *places, "--encoder", tiny_encoder)
    ranking = ("--preset", "gru", "--epochs", 1, "--embedding", 4, "--run", tmp_path / "run")
    run_script("train.py", *places, *ranking)
    asked = ("--run", tmp_path / "run", "--stars-from", tiny_run)
    assert "other users or movies" in run_script("generate_recommendation.py", *asked, code=1).stderr


def test_a_rating_does_not_predict_itself_among_seen_movies(data):
    """Changed alone, it leaves its own movie's score as it was, and moves the others'."""
    model = made(data, np.arange(len(data.user)))
    mine = data.by_user_and_time(np.flatnonzero(data.user == 5))
    columns = [torch.from_numpy(column[mine])[None] for column in (data.movie, data.rating, data.time)]
    past = Past(*columns, torch.ones(1, len(mine), dtype=torch.bool))
    before = scores_of_known(model, past)
    changed = Past(past.movie, past.stars.clone(), past.time, past.real)
    changed.stars[0, 3] += 2
    moved = (scores_of_known(model, changed) - before).abs()
    assert moved[3] < 1e-5 < 1e-3 < moved.max()


@pytest.mark.parametrize("arguments", [(), ("--epochs", 3)])
def test_a_reader_that_goes_away_does_not_stop_a_training(tiny, tiny_features, tmp_path, arguments):
    words = (ROOT / "train.py", "--data", tiny, "--features", tiny_features, "--run", tmp_path / "run", *TINY_TRAINING)
    command = [sys.executable, *map(str, (*words, *arguments))]
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert training.stdout.readline().startswith("tiny: ")
    training.stdout.close()  # as `head -1` does
    error = training.stderr.read()
    assert training.wait() == 0 and "Error" not in error
    assert len(rows_of(tmp_path / "run/metrics.csv")) == (3 if arguments else 4)
    assert (tmp_path / "run/test_metrics.json").is_file()


def test_main_takes_no_foreign_run_for_its_own(run_script, tiny_encoder, tmp_path):
    """Not one with other settings, and after a new rating none of the old ones."""
    root = tmp_path / "clone"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    flags = ("--data", folder, "--encoder", tiny_encoder)
    places = ("--data", folder, "--features", root / "dataset/movie_bert_dict.pkl")
    run_script("utils/BERT.py", *flags, root=root)
    for preset in ("default", "autoencoder"):
        run_script("train.py", *places, "--preset", preset, "--epochs", 1, "--embedding", 2, root=root)
    first = run_script("main.py", *flags, root=root).stdout
    assert first.count("nothing to do") == 1  # the features
    assert run_script("main.py", *flags, root=root).stdout.count("nothing to do") == 3
    with (folder / "ratings.dat").open("a") as file:
        file.write("1000::2::5::978300000\n")
    asked = run_script("main.py", *flags, "--user", 1000, root=root).stdout
    assert asked.count("nothing to do") == 1 and "movie IDs for user 1000: [" in asked
