"""train.py on the real MovieLens 100K: the project's own thresholds, and the canonical folds."""

import json
from pathlib import Path

import pytest
from helpers import test_metrics


@pytest.fixture(scope="module")
def real_places(ml_100k, real_features) -> tuple:
    return "--data", ml_100k, "--features", real_features


def test_predictions_on_ml_100k_are_better_than_biases(run_script, ml_100k, real_places, tmp_path):
    """The project's own thresholds: on these rows the biases alone reach .95, matrix factorisation .92."""
    run = tmp_path / "history"
    flags = ("--run", run, "--preset", "history", "--epochs", 4, "--ratios", 0.7, 0.1, 0.2)
    done = run_script("train.py", *real_places, *flags)
    assert test_metrics(run)["rmse"] < 0.9, done.stdout
    assert test_metrics(run)["test_rows"] == 20_000
    line = run_script("generate_recommendation.py", "--run", run).stdout.splitlines()[-1]
    assert line.startswith("Top 10 recommended movie IDs for user 1: [")
    ids = json.loads(line.split(": ")[1])
    rated = {int(movie) for user, movie, *_ in table_of(ml_100k) if user == "1"}
    assert len(set(ids)) == 10 and not set(ids) & rated and len(rated) > 200
    run_script("resultAnalyze/loss_ananlyze.py", "--run", run, "--output", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_canonical_folds_of_ml_100k_can_be_given(run_script, ml_100k, real_places, tmp_path):
    """u1.base and u1.test; where the package's copy has no folds, they are made here from the ratings."""
    names = ("u1.base", "u1.test")
    if not all((ml_100k / name).is_file() for name in names):
        lines = ["\t".join(row) + "\n" for row in table_of(ml_100k)]
        for name, part in zip(names, (lines[:80_000], lines[80_000:]), strict=True):
            (tmp_path / name).write_text("".join(part))
    given = ("--train-file", "u1.base", "--test-file", "u1.test", "--epochs", 1)
    run_script("train.py", *real_places, "--run", tmp_path / "run", *given)
    test = test_metrics(tmp_path / "run")
    assert test["split"] == "given files" and test["test_rows"] == 20_000
    assert test["train_rows"] + test["val_rows"] == 80_000


def table_of(ml_100k: Path) -> list[list[str]]:
    """The ratings as strings: user, movie, rating and time."""
    path = next(path for name in ("u.data", "ml-100k.inter") if (path := ml_100k / name).is_file())
    lines = path.read_text().splitlines()
    return [line.split("\t") for line in lines[path.suffix == ".inter" :]]
