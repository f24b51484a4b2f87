"""train.py --final: a finished run's configuration on all ratings, for recommending."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from helpers import (
    SMALL,
    command,
    files_of,
    rows_of,
    run_command,
    shuffle_ratings,
    states_are_equal,
    test_metrics,
    tiny_ratings,
    train_here,
    write_dat,
)

from Models.checkpoint import load_model
from utils.files import UserError
from utils.splits import TRAIN

# Validation soon stops improving, so that the chosen epoch is not the last one.
TRAINING = (
    "--preset",
    "ncf",
    *SMALL["ncf"],
    "--lr",
    0.002,
    "--schedule",
    "constant",
    "--epochs",
    30,
    "--patience",
    3,
    "--seed",
    1,
)


@pytest.fixture(scope="module")
def tested(places, tmp_path_factory) -> Path:
    """A finished run with a test."""
    run = train_here(*places, "--run", tmp_path_factory.mktemp("tested") / "run", *TRAINING)
    assert 1 < test_metrics(run)["best_epoch"] < len(rows_of(run / "metrics.csv"))
    return run


@pytest.fixture(scope="module")
def files_before(tested) -> dict[str, bytes]:
    """The files of the finished run as they were before any final training."""
    return {path.name: path.read_bytes() for path in tested.iterdir()}


@pytest.fixture(scope="module")
def final(tested, files_before, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("final") / "run"
    done = run_command("train.py", "--final", tested, "--run", run)
    assert "Trained on all 360 ratings" in done.stdout
    return run


def without_run(run: Path) -> dict:
    """A run's config.json without its protocol and its section `run`."""
    record = json.loads((run / "config.json").read_text())
    del record["protocol"], record["config"]["run"]
    return record


def test_a_final_training_leaves_the_finished_run_as_it_was(tested, files_before, final):
    assert "test_metrics.json" in files_before
    assert {path.name: path.read_bytes() for path in tested.iterdir()} == files_before


def test_a_final_training_is_on_all_ratings_for_the_epochs_that_validation_chose(tested, final):
    names = ["best.pt", "config.json", "final.json", "last.pt", "metrics.csv"]
    assert files_of(final) == names
    record = json.loads((final / "final.json").read_text())
    assert (record["train_rows"], record["val_rows"], record["test_rows"]) == (360, 0, 0)
    assert (record["split"], record["epochs_chosen_by"]) == ("all ratings", str(tested))
    epochs = rows_of(final / "metrics.csv")
    assert list(epochs[0]) == ["epoch", "train_loss", "seconds"]
    assert len(epochs) == record["epochs"] == test_metrics(tested)["best_epoch"]
    saved = load_model(final / "best.pt", torch.device("cpu"))
    assert len(saved.ratings.part) == 360 and (saved.ratings.part == TRAIN).all()
    assert states_are_equal(final / "best.pt", final / "last.pt")  # nothing chooses among its epochs


def test_a_final_training_has_the_configuration_of_the_finished_run(tested, final):
    assert without_run(final) == without_run(tested)
    one, other = (json.loads((run / "config.json").read_text())["config"]["run"] for run in (tested, final))
    assert (one["final"], other["final"]) == (None, str(tested))
    assert one["seed"] == other["seed"] == 1
    assert json.loads((final / "config.json").read_text())["protocol"] == "all 360 ratings train, nothing is tested"


def test_a_final_training_repeats(tested, final, tmp_path):
    again = train_here("--final", tested, "--run", tmp_path / "again")
    assert states_are_equal(again / "best.pt", final / "best.pt")
    assert states_are_equal(again / "last.pt", final / "last.pt")


def test_test_ratings_train_a_final_model(tested, final, tiny_features, data, tmp_path):
    """With one test rating changed, the tested model stays the same and the final one does not."""
    known = load_model(tested / "best.pt", torch.device("cpu")).ratings
    position = int((known.part == 2).nonzero()[0])
    user, movie = int(known.history.users()[position]), int(known.history.movie[position])
    ids = data.user_ids[user], data.movies["movie"][movie]
    changed = [(u, m, 6 - r if (u, m) == ids else r, t) for u, m, r, t in tiny_ratings()]
    places = ("--data", write_dat(tmp_path / "tiny", changed), "--features", tiny_features)
    other = train_here(*places, *TRAINING, "--run", tmp_path / "tested")
    assert states_are_equal(other / "best.pt", tested / "best.pt")
    assert changed != tiny_ratings()
    other = train_here("--final", other, "--run", tmp_path / "final")
    assert not states_are_equal(other / "best.pt", final / "best.pt")


@pytest.mark.parametrize("preset", ["history", "ncf-ranking", "transformer", "autoencoder"])
def test_every_kind_of_model_has_a_final_training(preset, places, tmp_path):
    run = train_here(*places, "--run", tmp_path / "run", "--preset", preset, "--epochs", 3, *SMALL[preset])
    final = train_here("--final", run, "--run", tmp_path / "final")
    record = json.loads((final / "final.json").read_text())
    assert (record["train_rows"], record["epochs"]) == (360, test_metrics(run)["best_epoch"])
    assert (load_model(final / "best.pt", torch.device("cpu")).ratings.part == TRAIN).all()
    assert not states_are_equal(final / "best.pt", run / "best.pt")


# --- stopped training runs ---------------------------------------------------------------------------


def test_a_killed_and_resumed_final_training_equals_one_that_was_never_stopped(run_script, places, tmp_path):
    """Without validation, it trains for all 50 epochs."""
    flags = ("--preset", "ncf", *SMALL["ncf"], "--epochs", 50, "--ratios", 0.8, 0, 0.2)
    tested = train_here(*places, *flags, "--run", tmp_path / "tested")
    whole, killed = train_here("--final", tested, "--run", tmp_path / "whole"), tmp_path / "killed"
    words = command("train.py", "--final", tested, "--run", killed)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while not (killed / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert (killed / "metrics.csv").exists() and not (killed / "final.json").exists()
    run_script("train.py", "--resume", killed)
    one, other = (json.loads((run / "final.json").read_text()) for run in (whole, killed))
    assert one | {"wall_seconds": 0} == other | {"wall_seconds": 0} and one["epochs"] == 50
    losses = [[row["train_loss"] for row in rows_of(run / "metrics.csv")] for run in (whole, killed)]
    assert losses[0] == losses[1] and len(losses[0]) == 50
    assert states_are_equal(killed / "best.pt", whole / "best.pt")
    assert states_are_equal(killed / "last.pt", whole / "last.pt")
    with pytest.raises(UserError, match="nothing to resume"):
        train_here("--resume", killed)


# --- refusals ------------------------------------------------------------------------------------


def is_one_sentence(error: str) -> bool:
    return error.startswith("error: ") and error.count("\n") == 1


def test_a_final_run_has_no_final_training_and_no_test(run_script, final, tmp_path):
    words = "was trained on all ratings and has no test: name the run that it was made from."
    for script in ("train.py", "resultAnalyze/loss_ananlyze.py", "resultAnalyze/calibration.py"):
        training = script == "train.py"
        flags = ("--final", final, "--run", tmp_path / "out") if training else ("--run", final)
        output = () if training else ("--output", tmp_path / "out.png")
        done = run_script(script, *flags, *output, code=1)
        assert words in done.stderr and is_one_sentence(done.stderr)
    assert not list(tmp_path.iterdir())


def test_a_final_training_of_an_unfinished_run_is_refused(tested, tmp_path):
    shutil.copytree(tested, tmp_path / "stopped")
    (tmp_path / "stopped/test_metrics.json").unlink()
    for folder, words in (
        ("stopped", "holds no finished run: resume it with python train.py --resume"),
        ("none", "holds no training"),
    ):
        with pytest.raises(UserError, match=words):
            train_here("--final", tmp_path / folder, "--run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_final_training_with_other_flags_is_refused(run_script, tested, tmp_path):
    done = run_script("train.py", "--final", tested, "--run", tmp_path / "out", "--seed", 1, "--epochs=3", code=1)
    assert "leave --epochs, --seed out" in done.stderr and is_one_sentence(done.stderr)
    assert not (tmp_path / "out").exists()


def test_a_final_training_on_other_ratings_is_refused(tiny_features, tmp_path):
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    run = train_here("--data", folder, "--features", tiny_features, *TRAINING, "--run", tmp_path / "run")
    shuffle_ratings(folder)
    with pytest.raises(UserError, match="The ratings or users are not those that"):
        train_here("--final", run, "--run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
