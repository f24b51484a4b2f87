"""train.py: what a run folder holds, that no test rating affects training, that it repeats, resumes and refuses."""

import json
import math
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    RATIOS,
    SMALL,
    TINY_TRAINING,
    command,
    files_of,
    rows_of,
    states_are_equal,
    test_metrics,
    tiny_ratings,
    train_here,
    without_times,
    write_dat,
)

from Models.checkpoint import load_model, read_checkpoint
from Models.dataLoader import make_loader
from Models.ratings_data import split_rows
from utils.files import UserError

HISTORY_TRAINING = ("--preset", "history", "--epochs", 3, *SMALL["history"])
RATING_FILES = ["best.pt", "config.json", "last.pt", "metrics.csv", "test_metrics.json", "test_predictions.csv"]


@pytest.fixture(scope="module")
def split(data):
    return split_rows(data, "random", RATIOS)


@pytest.fixture(scope="module")
def history_run(places, tmp_path_factory) -> Path:
    return train_here(*places, "--run", tmp_path_factory.mktemp("history") / "run", *HISTORY_TRAINING)


@pytest.fixture(scope="module")
def stopped_early(places, tmp_path_factory) -> Path:
    """A training whose validation soon stops improving, with TensorBoard logs."""
    flags = (*SMALL["ncf"], "--lr", 0.1, "--epochs", 40, "--patience", 2, "--tensorboard")
    return train_here(*places, "--run", tmp_path_factory.mktemp("early") / "run", "--preset", "ncf", *flags)


# --- a run folder --------------------------------------------------------------------------------


def test_a_run_folder_is_complete(tiny_run):
    assert files_of(tiny_run) == RATING_FILES
    epochs = rows_of(tiny_run / "metrics.csv")
    assert list(epochs[0]) == ["epoch", "train_loss", "val_loss", "val_rmse", "val_mae", "seconds"]
    assert [row["epoch"] for row in epochs] == ["1", "2", "3", "4"]
    test = test_metrics(tiny_run)
    assert test["best_epoch"] == int(min(epochs, key=lambda row: float(row["val_rmse"]))["epoch"])
    assert (test["train_rows"], test["val_rows"], test["test_rows"]) == (180, 108, 72)
    assert test["dataset"] == "tiny" and test["seed"] == 0 and "random rows 50/30/20" in test["protocol"]
    assert (test["preset"], test["model"], test["task"]) == ("ncf", "NCF", "rating")
    assert test["changes"]["embedding_dim"] == 4 and "dropout" not in test["changes"]
    config = json.loads((tiny_run / "config.json").read_text())
    assert config["config"]["model"]["embedding_dim"] == 4 and config["config"]["optim"]["epochs"] == 4


def test_rmse_can_be_recomputed_from_the_predictions(tiny_run, split):
    predictions = rows_of(tiny_run / "test_predictions.csv")
    errors = [float(row["prediction"]) - float(row["rating"]) for row in predictions]
    test = test_metrics(tiny_run)
    assert math.sqrt(sum(e * e for e in errors) / len(errors)) == pytest.approx(test["rmse"], abs=1e-5)
    assert sum(map(abs, errors)) / len(errors) == pytest.approx(test["mae"], abs=1e-5)
    expected = [tiny_ratings()[row][:3] for row in split.test]
    found = [(int(r["userId"]), int(r["movieId"]), int(float(r["rating"]))) for r in predictions]
    assert sorted(found) == sorted(expected) and len(found) == len(expected)
    assert all(1 <= float(row["prediction"]) <= 5 for row in predictions)


@pytest.mark.parametrize("preset", ["ncf", "history"])
def test_a_checkpoint_predicts_by_itself_as_it_was_tested(preset, tiny_run, history_run, data, split):
    run = {"ncf": tiny_run, "history": history_run}[preset]
    saved = load_model(run / "best.pt", torch.device("cpu"))
    rows = data.by_user_and_time(split.test)
    prediction = saved.model.predict(next(iter(make_loader(data, rows, len(rows)))), saved.ratings.training())
    stored = [float(row["prediction"]) for row in rows_of(run / "test_predictions.csv")]
    np.testing.assert_allclose(prediction.detach().clamp(1, 5), stored, atol=1e-4)
    if preset == "history":
        assert saved.model.context == ("time", "year", "demographics")
        assert test_metrics(run)["model"] == "History"


def test_early_stopping_keeps_the_best_epoch(stopped_early):
    epochs, test = without_times(stopped_early)
    assert len(epochs) == test["epochs"] == test["best_epoch"] + 2 < 40
    assert read_checkpoint(stopped_early / "best.pt")["epoch"] == test["best_epoch"]
    assert len(read_checkpoint(stopped_early / "last.pt")["epochs"]) == test["epochs"]


def test_tensorboard_logs_are_written_only_if_wanted(stopped_early, tiny_run):
    (log,) = stopped_early.glob("events.out.tfevents*")
    assert b"val_rmse" in log.read_bytes()
    assert not list(tiny_run.glob("events.out.tfevents*"))


def test_without_validation_the_number_of_epochs_is_fixed(run_script, places, tmp_path):
    train_here(*places, "--run", tmp_path / "run", *TINY_TRAINING, "--ratios", 0.8, 0, 0.2)
    epochs, test = without_times(tmp_path / "run")
    assert list(epochs[0]) == ["epoch", "train_loss"] and test["best_epoch"] == test["epochs"] == 4
    assert "no validation, fixed number of epochs" in test["protocol"]
    run_script("resultAnalyze/loss_ananlyze.py", "--run", tmp_path / "run", "--output", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_ratings_of_another_scale_train(tiny_features, tmp_path):
    """Ratings of 0.5 to 10.5: no scale is fixed in the code."""
    folder = write_dat(tmp_path / "ml", [(u, m, r * 2.5 - 2, t) for u, m, r, t in tiny_ratings()])
    flags = ("--data", folder, "--features", tiny_features, "--preset", "original", "--epochs", 2)
    run = train_here(*flags, "--run", tmp_path / "run")
    stats = load_model(run / "best.pt", torch.device("cpu")).model.stats
    assert (stats.scale.low, stats.scale.high) == (0.5, 10.5)
    assert all(0.5 <= float(row["prediction"]) <= 10.5 for row in rows_of(run / "test_predictions.csv"))


# --- what affects a training ---------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["ncf", "history"])
def test_no_test_rating_affects_training(preset, run_script, tiny_features, tiny_run, history_run, split, tmp_path):
    """With every test rating mirrored on the scale, the model is the same, bit for bit."""
    run, flags = {"ncf": (tiny_run, TINY_TRAINING), "history": (history_run, HISTORY_TRAINING)}[preset]
    test = set(split.test.tolist())
    mirrored = [(u, m, 6 - r if row in test else r, t) for row, (u, m, r, t) in enumerate(tiny_ratings())]
    folder = write_dat(tmp_path / "tiny", mirrored)
    run_script("train.py", "--data", folder, "--features", tiny_features, "--run", tmp_path / "run", *flags)
    assert states_are_equal(tmp_path / "run/best.pt", run / "best.pt")
    assert without_times(tmp_path / "run")[0] == without_times(run)[0]
    assert test_metrics(tmp_path / "run")["rmse"] != test_metrics(run)["rmse"]


def test_one_seed_gives_one_result_and_another_another(run_script, places, tiny_run, tmp_path):
    run_script("train.py", *places, *TINY_TRAINING, "--run", tmp_path / "again")
    train_here(*places, *TINY_TRAINING, "--run", tmp_path / "other", "--seed", 1)
    assert files_of(tmp_path / "again") == RATING_FILES
    assert without_times(tmp_path / "again") == without_times(tiny_run)
    assert states_are_equal(tmp_path / "again/last.pt", tiny_run / "last.pt")
    assert not states_are_equal(tmp_path / "other/last.pt", tiny_run / "last.pt")
    assert test_metrics(tmp_path / "other")["split_sha256"] == test_metrics(tiny_run)["split_sha256"]


def test_context_that_the_data_lacks_is_noticed_and_not_used(run_script, tiny_features, tmp_path):
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    (folder / "users.dat").unlink()
    lines = (folder / "ratings.dat").read_text().splitlines()
    (folder / "ratings.dat").write_text("".join(line.rsplit("::", 1)[0] + "\n" for line in lines))
    flags = ("--data", folder, "--features", tiny_features, "--run", tmp_path / "run", *HISTORY_TRAINING)
    done = run_script("train.py", *flags)
    assert "The data has no times and no demographics: trained without them." in done.stdout
    assert load_model(tmp_path / "run/best.pt", torch.device("cpu")).model.context == ("year",)


# --- going on with a training --------------------------------------------------------------------


def test_a_resumed_training_equals_one_that_was_never_stopped(run_script, places, tiny_run, tmp_path):
    """Stop after two of four epochs, as a kill would: no test metrics, last.pt of the second epoch."""
    run = train_here(*places, *TINY_TRAINING, "--run", tmp_path / "stopped", "--epochs", 2)
    for name in ("test_metrics.json", "test_predictions.csv"):
        (run / name).unlink()
    config = json.loads((run / "config.json").read_text())
    config["config"]["optim"]["epochs"] = 4
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="leave --seed out"):
        train_here("--resume", run, "--seed", 3)
    done = run_script("train.py", "--resume", run)
    assert "epoch   3" in done.stdout and "epoch   2" not in done.stdout
    assert without_times(run) == without_times(tiny_run)
    assert states_are_equal(run / "best.pt", tiny_run / "best.pt")
    assert states_are_equal(run / "last.pt", tiny_run / "last.pt")
    assert "nothing to resume" in run_script("train.py", "--resume", run, code=1).stderr


def test_a_killed_and_resumed_training_equals_one_that_was_never_stopped(run_script, places, tmp_path):
    """Killed after some of 60 epochs: the learning rate continues along its schedule."""
    flags = (*places, *HISTORY_TRAINING, "--epochs", 60)
    whole, killed = train_here(*flags, "--run", tmp_path / "whole"), tmp_path / "killed"
    process = subprocess.Popen(command("train.py", *flags, "--run", killed), stdout=subprocess.DEVNULL)
    while not (killed / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert (killed / "metrics.csv").exists() and not (killed / "test_metrics.json").exists()
    run_script("train.py", "--resume", killed)
    assert without_times(killed) == without_times(whole)
    assert states_are_equal(killed / "best.pt", whole / "best.pt")
    assert states_are_equal(killed / "last.pt", whole / "last.pt")


def test_a_training_stopped_between_its_two_files_has_the_best_epoch(places, tmp_path):
    """last.pt is written first; here the training seems to have stopped before best.pt."""
    flags = ("--preset", "autoencoder", "--network-weight", 0, "--epochs", 1)  # one epoch, which is the best one
    whole = train_here(*places, "--run", tmp_path / "whole", *flags)
    for name in ("best.pt", "test_metrics.json", "test_topn.csv"):
        (whole / name).unlink()
    train_here("--resume", whole)
    assert load_model(whole / "best.pt", torch.device("cpu")).ids.user_ids and test_metrics(whole)["best_epoch"] == 1


def test_a_training_on_given_files_is_resumed_from_another_folder(run_script, tiny_features, tmp_path):
    """Started in the folder of the data, all paths relative; stopped before its first epoch was done."""
    folder = write_dat(tmp_path / "data", tiny_ratings())
    lines = (folder / "ratings.dat").read_text().splitlines(keepends=True)
    (folder / "u1.base").write_text("".join(lines[:300]))
    (folder / "u1.test").write_text("".join(lines[300:]))
    given = ("--features", tiny_features, "--train-file", "u1.base", "--test-file", "u1.test", *TINY_TRAINING)
    words = command("train.py", "--data", ".", *given, "--run", "../run")
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    for name in ("test_metrics.json", "test_predictions.csv", "last.pt", "best.pt", "metrics.csv"):
        (tmp_path / "run" / name).unlink()
    run_script("train.py", "--resume", "run")
    test = test_metrics(tmp_path / "whole")
    assert (test["split"], test["dataset"], test["test_rows"]) == ("given files", "data", 60)
    assert test["train_rows"] + test["val_rows"] == 300
    assert without_times(tmp_path / "run") == without_times(tmp_path / "whole")
    assert states_are_equal(tmp_path / "run/last.pt", tmp_path / "whole/last.pt")


def test_a_reader_that_goes_away_does_not_stop_a_training(places, tmp_path):
    words = command("train.py", *places, "--run", tmp_path / "run", *TINY_TRAINING)
    training = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert training.stdout.readline().startswith("tiny: ")
    training.stdout.close()  # as `head -n 1` does
    error = training.stderr.read()
    assert training.wait() == 0 and "Error" not in error
    assert len(rows_of(tmp_path / "run/metrics.csv")) == 4
    assert (tmp_path / "run/test_metrics.json").is_file()


# --- faults --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_training(run_script, places, tmp_path):
    done = run_script("train.py", *places, "--run", tmp_path / "run", *TINY_TRAINING, "--lr", 1e30, code=1)
    assert "not finite in epoch 1, batch" in done.stderr and "--lr" in done.stderr
    assert not (tmp_path / "run/test_metrics.json").exists()


def test_faults_before_training_leave_no_run(run_script, tiny, places, tiny_run, tmp_path):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tiny_run.iterdir()}
    with pytest.raises(UserError, match="no features file"):
        train_here("--data", tiny, "--features", tmp_path / "none.pkl", "--run", tmp_path / "r")
    done = run_script("train.py", *places, "--run", tmp_path / "r", "--epochs", 0, code=2)
    assert "--epochs '0' is not at least 1" in done.stderr
    assert not (tmp_path / "r").exists()
    assert "already there" in run_script("train.py", *places, "--run", tiny_run, code=1).stderr
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tiny_run.iterdir()} == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(run_script, places, tmp_path):
    done = run_script("train.py", *places, "--run", tmp_path / "run", "--device", "cuda", code=1)
    assert "no cuda device" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("preset", "flag", "value"), [("history", "--dropout", 0.1), ("ncf", "--hidden-dims", 3)], ids=["history", "ncf"]
)
def test_flags_of_another_model_are_wrong_usage(run_script, places, tmp_path, preset, flag, value):
    done = run_script("train.py", *places, "--run", tmp_path / "run", "--preset", preset, flag, value, code=2)
    assert "Unrecognized options" in done.stderr and flag in done.stderr
    assert not (tmp_path / "run").exists()
