"""compare_baselines.py: complete, goes on where it stopped, and mixes no results of different protocols."""

import json
import os
import subprocess

import pytest
from helpers import command, main_here, rows_of, shuffle_ratings, tiny_ratings, write_dat

from resultAnalyze import compare_baselines
from utils.files import Note, UserError

SCRIPT = "resultAnalyze/compare_baselines.py"


def test_a_comparison_is_complete_and_goes_on_where_it_stopped(places, tmp_path):
    """The libraries are made to be missing: their rows say what to install."""
    (tmp_path / "implicit.py").write_text("raise ImportError('gone', name='implicit')\n")
    models = ["most popular", "user + movie bias", "EASE", "ALS (implicit)", "ncf"]
    shape = ("--ratios", 0.5, 0.3, 0.2, "--seeds", 0, "--output", tmp_path / "out")

    def compare(*flags: object) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        words = command(SCRIPT, *places, *shape, *flags)
        return subprocess.run(words, capture_output=True, text=True, env=environment)

    first = compare("--models", *models[:3])
    assert first.returncode == 0, first.stderr
    second = compare("--models", *models)
    assert second.returncode == 0, second.stderr
    assert "EASE, seed" not in second.stdout and "ncf, seed 0" in second.stdout
    found = {row["model"]: row for row in rows_of(tmp_path / "out/comparison.csv")}
    assert list(found) == ["most popular", "user + movie bias", "EASE", "ncf"]
    assert found["most popular"]["rmse"] == found["EASE"]["rmse"] == ""
    assert all(0 < float(found[name]["rmse"]) < 3 for name in ("user + movie bias", "ncf"))
    assert all(0 <= float(row["ndcg@10"]) <= 1 and 0 < float(row["coverage"]) <= 1 for row in found.values())
    table = (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert "| ALS (implicit) |  | implicit is not installed: pip install -r requirements-baselines.txt" in table
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")

    for flags, words in (
        (("EASE", "--relevance-threshold", 3), "another protocol"),
        (("EASY",), "There is no model EASY"),
    ):
        with pytest.raises(UserError, match=words):
            main_here(compare_baselines, *places, *shape, "--models", *flags)
    (tmp_path / "out/comparison.csv").write_text("model,seed,rmse\nEASE,0,\n", encoding="utf-8")
    with pytest.raises(UserError, match="another version"):
        main_here(compare_baselines, *places, *shape, "--models", "EASE")


def test_tuned_models_are_tested_with_their_best_settings(places, tmp_path):
    """Of every model as many trials; the test is that of the model with these settings."""
    flags = ("--ratios", 0.5, 0.3, 0.2, "--output", tmp_path / "out", "--seeds", 0, "--tune", 3)
    main_here(compare_baselines, *places, *flags, "--models", "EASE", "user + movie bias", "most popular", "content")
    found = {row["model"]: row for row in rows_of(tmp_path / "out/comparison.csv")}
    assert found["most popular"]["settings"] == "{}"
    for name in ("EASE", "user + movie bias", "content"):
        trials = rows_of(tmp_path / f"out/trials-{name.replace(' ', '-')}.csv")
        assert len(trials) == 3 and found[name]["settings"] in {row["settings"] for row in trials}
    config = json.loads((tmp_path / "out/runs/content-0/config.json").read_text())["config"]
    chosen = json.loads(found["content"]["settings"])
    assert config["optim"]["lr"] == chosen["lr"] and config["model"]["share_as_new"] == chosen["share_as_new"]
    assert f"- EASE: penalty {json.loads(found['EASE']['settings'])['penalty']:.3g}\n" in (
        tmp_path / "out/comparison.md"
    ).read_text(encoding="utf-8")
    with pytest.raises(UserError, match="another protocol"):
        main_here(compare_baselines, *places, *flags[:-1], 4, "--models", "EASE")


def test_cold_movies_have_columns_of_their_own(places, tmp_path):
    models = ("most popular", "user + movie bias", "genre kNN")
    flags = ("--output", tmp_path / "out", "--split", "cold-movies", "--models", *models)
    main_here(compare_baselines, *places, *flags)
    found = {row["model"]: row for row in rows_of(tmp_path / "out/comparison.csv")}
    assert float(found["user + movie bias"]["cold_auc"]) == 0.5  # a user's cold movies all look alike to it
    assert float(found["genre kNN"]["cold_rmse"]) > 0 and found["most popular"]["cold_rmse"] == ""
    # both know nothing of cold movies: ties, which count against them alike
    assert found["most popular"]["cold_ndcg@10"] == found["user + movie bias"]["cold_ndcg@10"]
    assert "cold_auc" in (tmp_path / "out/comparison.md").read_text(encoding="utf-8")


def test_trainings_are_kept_and_not_reused_on_other_ratings(tiny_features, tmp_path):
    folder, out = write_dat(tmp_path / "tiny", tiny_ratings()), tmp_path / "out"
    flags = ("--data", folder, "--features", tiny_features, "--output", out, "--seeds", 0)
    flags += ("--models", "history", "--ratios", 0.5, 0.3, 0.2)
    main_here(compare_baselines, *flags)
    row, trained = rows_of(out / "comparison.csv"), (out / "runs/history-0/best.pt").stat().st_mtime_ns
    (out / "comparison.csv").unlink()
    main_here(compare_baselines, *flags)
    assert [one | {"memory": ""} for one in rows_of(out / "comparison.csv")] == [one | {"memory": ""} for one in row]
    assert (out / "runs/history-0/best.pt").stat().st_mtime_ns == trained

    shuffle_ratings(folder)
    with pytest.raises(UserError, match="another protocol"):
        main_here(compare_baselines, *flags)
    (out / "protocol.json").unlink()
    (out / "comparison.csv").unlink()
    with pytest.raises(UserError, match="other ratings"):
        main_here(compare_baselines, *flags)


def test_choices_without_ratings_are_compared_by_their_lists(tiny_features, tmp_path):
    folder = write_dat(tmp_path / "tiny", [(u, m, 1, t) for u, m, _, t in tiny_ratings()])
    flags = ("--data", folder, "--features", tiny_features, "--seeds", 0, "--output", tmp_path / "out")
    with pytest.warns(Note, match="ncf is left out: it learns how high ratings are, and these are all equal"):
        main_here(compare_baselines, *flags, "--models", "most popular", "genre kNN", "EASE", "ncf", "autoencoder")
    found = {row["model"]: row for row in rows_of(tmp_path / "out/comparison.csv")}
    assert list(found) == ["most popular", "EASE", "autoencoder"]
    assert all(row["rmse"] == "" and 0 < float(row["ndcg@10"]) < 1 for row in found.values())
