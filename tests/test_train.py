"""Training: what a run folder holds, that no test row touches it, that it repeats, resumes and refuses."""

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY_TRAINING, tiny_ratings, write_dat
from test_features import Evil

from Models.checkpoint import read_checkpoint, rebuild
from Models.dataLoader import load_data, split_rows
from train import Settings, defaults_for
from utils import cli
from utils.files import UserError
from utils.ratings import read_ratings

RATIOS = (0.5, 0.3, 0.2)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def states_are_equal(one: Path, other: Path) -> bool:
    a, b = (read_checkpoint(path)["state"] for path in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_times(run: Path) -> tuple[list, dict]:
    epochs = [{name: value for name, value in row.items() if name != "seconds"} for row in rows_of(run / "metrics.csv")]
    test = json.loads((run / "test_metrics.json").read_text())
    return epochs, {name: value for name, value in test.items() if name != "wall_seconds"}


def test_the_original_preset_is_the_original_and_flags_beside_it_win():
    original = cli.parse(Settings, "", ["--preset", "original"], defaults_for)
    assert (original.embedding, original.hidden, original.dropout) == (32, (128, 64), 0.2)
    assert (original.lr, original.batch_size, original.epochs, original.patience) == (1e-3, 256, 50, 0)
    assert original.sigmoid and not (original.biases or original.gmf or original.unit_titles)
    assert original.weight_decay == original.l2 == original.l2_bias == 0
    assert (original.split, original.ratios) == ("random", RATIOS)
    assert cli.parse(
        Settings, "", ["--preset", "original", "--epochs", "3", "--gmf"], defaults_for
    ) == dataclasses.replace(original, epochs=3, gmf=True)


def test_a_run_folder_is_complete(tiny_run):
    names = ["best.pt", "config.json", "last.pt", "metrics.csv", "test_metrics.json", "test_predictions.csv"]
    assert sorted(path.name for path in tiny_run.iterdir()) == names
    epochs = rows_of(tiny_run / "metrics.csv")
    assert list(epochs[0]) == ["epoch", "train_loss", "val_loss", "val_rmse", "val_mae", "seconds"]
    assert [row["epoch"] for row in epochs] == ["1", "2", "3", "4"]
    test = json.loads((tiny_run / "test_metrics.json").read_text())
    assert test["best_epoch"] == int(min(epochs, key=lambda row: float(row["val_rmse"]))["epoch"])
    assert (test["train_rows"], test["val_rows"], test["test_rows"]) == (180, 108, 72)
    assert test["dataset"] == "tiny" and test["seed"] == 0 and "random rows 50/30/20" in test["protocol"]
    assert json.loads((tiny_run / "config.json").read_text())["settings"]["embedding"] == 4


def test_rmse_can_be_recomputed_from_the_predictions(tiny_run, tiny, tiny_features):
    predictions = rows_of(tiny_run / "test_predictions.csv")
    errors = [float(row["prediction"]) - float(row["rating"]) for row in predictions]
    test = json.loads((tiny_run / "test_metrics.json").read_text())
    assert math.sqrt(sum(e * e for e in errors) / len(errors)) == pytest.approx(test["rmse"], abs=1e-5)
    assert sum(map(abs, errors)) / len(errors) == pytest.approx(test["mae"], abs=1e-5)
    split = split_rows(load_data(tiny, tiny_features), "random", RATIOS)
    expected = [tiny_ratings()[row][:3] for row in split.test]
    found = [(int(r["userId"]), int(r["movieId"]), int(float(r["rating"]))) for r in predictions]
    assert sorted(found) == sorted(expected) and len(found) == len(expected)
    assert all(1 <= float(row["prediction"]) <= 5 for row in predictions)


def test_no_test_rating_touches_training(run_script, tiny, tiny_features, tiny_run, tmp_path):
    """With every test rating turned round, the model is the same, bit for bit."""
    test = set(split_rows(load_data(tiny, tiny_features), "random", RATIOS).test.tolist())
    turned = [(u, m, 6 - r if row in test else r, t) for row, (u, m, r, t) in enumerate(tiny_ratings())]
    folder = write_dat(tmp_path / "tiny", turned)
    run_script("train.py", "--data", folder, "--features", tiny_features, "--run", tmp_path / "run", *TINY_TRAINING)
    assert states_are_equal(tmp_path / "run/best.pt", tiny_run / "best.pt")
    assert rows_of(tmp_path / "run/metrics.csv")[-1]["val_rmse"] == rows_of(tiny_run / "metrics.csv")[-1]["val_rmse"]
    assert without_times(tmp_path / "run")[1]["rmse"] != without_times(tiny_run)[1]["rmse"]


def test_one_seed_gives_one_result_and_another_another(run_script, tiny, tiny_features, tiny_run, tmp_path):
    flags = ("--data", tiny, "--features", tiny_features, *TINY_TRAINING)
    run_script("train.py", *flags, "--run", tmp_path / "again")
    run_script("train.py", *flags, "--run", tmp_path / "other", "--seed", 1)
    assert without_times(tmp_path / "again") == without_times(tiny_run)
    assert states_are_equal(tmp_path / "again/last.pt", tiny_run / "last.pt")
    assert not states_are_equal(tmp_path / "other/last.pt", tiny_run / "last.pt")


def test_a_resumed_training_equals_one_that_was_never_stopped(run_script, tiny, tiny_features, tiny_run, tmp_path):
    """Stop after two of four epochs, as a kill would: no test metrics, last.pt of the second epoch."""
    flags = ("--data", tiny, "--features", tiny_features, *TINY_TRAINING)
    run = tmp_path / "stopped"
    run_script("train.py", *flags, "--run", run, "--epochs", 2)
    for name in ("test_metrics.json", "test_predictions.csv"):
        (run / name).unlink()
    config = json.loads((run / "config.json").read_text())
    config["settings"]["epochs"] = 4
    (run / "config.json").write_text(json.dumps(config))
    run_script("train.py", "--resume", run)
    assert without_times(run) == without_times(tiny_run)
    assert states_are_equal(run / "best.pt", tiny_run / "best.pt")
    assert states_are_equal(run / "last.pt", tiny_run / "last.pt")
    done = run_script("train.py", "--resume", run, code=1)
    assert "nothing to resume" in done.stderr
    done = run_script("train.py", "--resume", run, "--seed", 3, code=1)
    assert "leave the other flags out" in done.stderr


def test_a_checkpoint_is_plain_and_scores_by_itself(tiny_run, tiny, tiny_features):
    model, catalogue = rebuild(read_checkpoint(tiny_run / "best.pt"), torch.device("cpu"))
    rated = {u: {row[1] for row in tiny_ratings() if row[0] == u} for u in (1, 4)}
    assert catalogue.user_ids[:2] == [1, 4]
    for position, user in enumerate(rated):
        assert {catalogue.movie_ids[i] for i in catalogue.seen(position)} == rated[user]
    assert "Misérables, Les (1995)" in catalogue.titles and catalogue.genres[-1] == ""
    assert model.score(torch.tensor([0])).shape == (1, 27)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state": Evil(tmp_path / "made")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="can be read safely"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "made").exists()
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="can be read safely"):
        read_checkpoint(tmp_path / "half.pt")


def test_early_stopping_keeps_the_best_epoch(run_script, tiny, tiny_features, tmp_path):
    shape = ("--preset", "ncf", "--embedding", 4, "--hidden", 8, 4, "--batch-size", 32, "--lr", 0.1)
    shape += ("--epochs", 40, "--patience", 2)
    run_script("train.py", "--data", tiny, "--features", tiny_features, "--run", tmp_path / "run", *shape)
    epochs, test = without_times(tmp_path / "run")
    assert len(epochs) == test["epochs"] == test["best_epoch"] + 2 < 40
    assert read_checkpoint(tmp_path / "run/best.pt")["epoch"] == test["best_epoch"]


def test_without_validation_the_epochs_are_fixed(run_script, tiny, tiny_features, tmp_path):
    flags = ("--data", tiny, "--features", tiny_features, "--run", tmp_path / "run", *TINY_TRAINING)
    run_script("train.py", *flags, "--ratios", 0.8, 0, 0.2)
    epochs, test = without_times(tmp_path / "run")
    assert list(epochs[0]) == ["epoch", "train_loss"] and test["best_epoch"] == 4
    assert "no validation, fixed number of epochs" in test["protocol"]
    run_script("resultAnalyze/loss_ananlyze.py", "--run", tmp_path / "run", "--output", tmp_path / "f.png")


def test_a_loss_that_is_not_finite_stops_the_training(run_script, tiny, tiny_features, tmp_path):
    flags = ("--data", tiny, "--features", tiny_features, "--run", tmp_path / "run", *TINY_TRAINING)
    done = run_script("train.py", *flags, "--lr", 1e30, code=1)
    assert "not finite in epoch 1, batch" in done.stderr and "--lr" in done.stderr
    assert not (tmp_path / "run/test_metrics.json").exists()


def test_faults_before_training_leave_no_run(run_script, tiny, tiny_features, tiny_run, tmp_path):
    done = run_script("train.py", "--data", tiny, "--features", tmp_path / "none.pkl", "--run", tmp_path / "r", code=1)
    assert "no features file" in done.stderr and not (tmp_path / "r").exists()
    run_script("train.py", "--epochs", 0, code=2)
    flags = ("--data", tiny, "--features", tiny_features)
    before = sorted(path.stat().st_mtime_ns for path in tiny_run.iterdir())
    done = run_script("train.py", *flags, "--run", tiny_run, code=1)
    assert "already there" in done.stderr
    assert sorted(path.stat().st_mtime_ns for path in tiny_run.iterdir()) == before
    if not torch.cuda.is_available():
        assert "no cuda device" in run_script("train.py", *flags, "--device", "cuda", code=1).stderr


def test_half_stars_and_another_scale(run_script, tiny_encoder, tmp_path):
    """Ratings of 0.5 to 10: no scale is written in the code."""
    folder = write_dat(tmp_path / "ml", [(u, m, r * 2.5 - 2, t) for u, m, r, t in tiny_ratings()])
    features = tmp_path / "f/movie_bert_dict.pkl"
    run_script("utils/BERT.py", "--data", folder, "--encoder", tiny_encoder, "--features", features)
    flags = ("--data", folder, "--features", features, "--run", tmp_path / "run")
    run_script("train.py", *flags, "--preset", "original", "--epochs", 2)
    sizes = read_checkpoint(tmp_path / "run/best.pt")["sizes"]
    assert (sizes["low"], sizes["high"]) == (0.5, 10.5)


def test_tensorboard_logs(run_script, tiny, tiny_features, tmp_path):
    flags = ("--data", tiny, "--features", tiny_features, "--run", tmp_path / "run", *TINY_TRAINING)
    run_script("train.py", *flags, "--epochs", 1, "--tensorboard")
    assert list((tmp_path / "run").glob("events.out.tfevents*"))


@pytest.fixture(scope="module")
def real_features(ml_100k, real_encoder, tmp_path_factory) -> Path:
    import subprocess
    import sys

    from conftest import ROOT

    features = tmp_path_factory.mktemp("real") / "movie_bert_dict.pkl"
    command = [sys.executable, ROOT / "utils/BERT.py", "--data", ml_100k, "--features", features]
    subprocess.run([*map(str, command), "--encoder", str(real_encoder)], check=True, capture_output=True)
    return features


def test_real_ml_100k_beats_the_biases(run_script, ml_100k, real_features, tmp_path):
    """The project's own bar on real data: the biases alone get .95 on this split, matrix factorisation .92."""
    flags = ("--data", ml_100k, "--features", real_features, "--run", tmp_path / "run", "--ratios", 0.7, 0.1, 0.2)
    done = run_script("train.py", *flags, "--epochs", 4)
    _, test = without_times(tmp_path / "run")
    assert test["rmse"] < 0.9, done.stdout
    assert test["test_rows"] == 20_000
    done = run_script("generate_recommendation.py", "--run", tmp_path / "run")
    line = done.stdout.splitlines()[-1]
    assert line.startswith("Top 10 recommended movie IDs for user 1: [")
    ids = json.loads(line.split(": ")[1])
    seen = read_ratings(next(path for name in ("u.data", "ml-100k.inter") if (path := ml_100k / name).is_file()))
    assert len(set(ids)) == 10 and not set(ids) & set(seen["movie"][seen["user"] == 1])
    run_script("resultAnalyze/loss_ananlyze.py", "--run", tmp_path / "run", "--output", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_canonical_folds_can_be_given(run_script, ml_100k, real_features, tmp_path):
    """u1.base and u1.test; made here from the ratings where the package's copy has no folds."""
    ratings = read_ratings(next(path for name in ("u.data", "ml-100k.inter") if (path := ml_100k / name).is_file()))
    table = ratings.astype({"rating": int})
    files = {"u1.base": table.iloc[:80_000], "u1.test": table.iloc[80_000:]}
    for name, part in files.items():
        if (ml_100k / name).is_file():
            shutil.copy(ml_100k / name, tmp_path / name)
        else:
            part.to_csv(tmp_path / name, sep="\t", header=False, index=False)
    given = ("--train-file", "u1.base", "--test-file", "u1.test", "--epochs", 1)
    flags = ("--data", ml_100k, "--features", real_features, "--run", tmp_path / "run")
    run_script("train.py", *flags, *given)
    _, test = without_times(tmp_path / "run")
    assert test["split"] == "given files" and test["test_rows"] == 20_000
    assert test["train_rows"] + test["val_rows"] == 80_000


# --- ensembles -----------------------------------------------------------------------------------


def test_mixed_precision_finds_about_the_same(run_script, tiny, tiny_features, tiny_run, tmp_path):
    places = ("--data", tiny, "--features", tiny_features, "--run", tmp_path / "run")
    run_script("train.py", *places, *TINY_TRAINING, "--amp")
    one, two = (float(rows_of(run / "metrics.csv")[-1]["val_rmse"]) for run in (tiny_run, tmp_path / "run"))
    assert one != two and one == pytest.approx(two, abs=0.01)
    assert "leave --amp out" in run_script("train.py", *places[:-1], tmp_path / "other", "--amp", code=1).stderr
    assert not (tmp_path / "other").exists()


def test_an_ensemble_is_the_mean_of_its_members(run_script, tiny, tiny_features, tmp_path):
    places = ("--data", tiny, "--features", tiny_features, "--run", tmp_path / "run")
    run_script("train.py", *places, *TINY_TRAINING, "--ensemble", 2)
    model, _ = rebuild(read_checkpoint(tmp_path / "run/best.pt"), torch.device("cpu"))
    one, other = model.members
    users = torch.arange(30)
    assert not torch.allclose(one.score(users), other.score(users), atol=1e-3)
    assert torch.allclose(model.score(users), (one.score(users) + other.score(users)) / 2)
    data = load_data(tiny, tiny_features)
    test = data.by_user_and_time(split_rows(data, "random", RATIOS).test)
    stars = model.score(torch.from_numpy(data.user[test])).gather(1, torch.from_numpy(data.movie[test])[:, None])
    predictions = [float(row["prediction"]) for row in rows_of(tmp_path / "run/test_predictions.csv")]
    assert predictions == pytest.approx(stars.squeeze(1).clamp(1, 5).tolist(), abs=1e-4)
    changed = json.loads((tmp_path / "run/test_metrics.json").read_text())["changed"]
    assert changed["ensemble"] == 2 and "hidden" in changed and "dropout" not in changed
    assert "Top 10" in run_script("generate_recommendation.py", "--run", tmp_path / "run").stdout
