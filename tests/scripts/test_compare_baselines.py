"""compare_baselines.py: it is complete, resumes where it stopped, and mixes no results of different protocols."""

import dataclasses
import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
from helpers import command, main_here, rows_of, shuffle_ratings, tiny_ratings, write_dat

from Models.configs import DataConfig
from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import split_rows
from resultAnalyze import compare_baselines
from resultAnalyze.comparison import Comparison, save_units
from resultAnalyze.intervals import UnitMetric, difference, mean, mean_over_users
from utils.files import Note, UserError

SCRIPT = "resultAnalyze/compare_baselines.py"


def test_a_comparison_is_complete_and_goes_on_where_it_stopped(places, tmp_path):
    """A library is made unavailable: its row says what to install."""
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
    """Every model gets the same number of trials and is tested with its best settings."""
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
    assert f"- EASE, 3 trials: penalty {json.loads(found['EASE']['settings'])['penalty']:.3g}\n" in (
        tmp_path / "out/comparison.md"
    ).read_text(encoding="utf-8")
    with pytest.raises(UserError, match="another protocol"):
        main_here(compare_baselines, *places, *flags[:-1], 4, "--models", "EASE")
    with pytest.raises(UserError, match="--tune needs validation rows"):
        main_here(compare_baselines, *places, "--tune", 3, "--ratios", 0.8, 0, 0.2, "--output", tmp_path / "none")


@pytest.fixture
def compared(data, tmp_path) -> Comparison:
    """A best model, one as good, one clearly worse, and one with too few seeds, by NDCG of 200 users."""
    random, rows = np.random.default_rng(0), []
    user = random.random(200)
    for model, loss, seeds in (("ncf", 0.0, 3), ("gru", 0.002, 3), ("EASE", 0.2, 1), ("content", 0.2, 2)):
        for seed in range(seeds):
            noise = 0.01 * random.normal() + 0.05 * random.normal(size=200)
            save_units(tmp_path / f"{model}-{seed}.npz", {"ndcg@10": mean_over_users(user - loss + noise)})
            rows.append({"model": model, "seed": seed, "settings": "{}", "trials": 0})
    evaluator = RankingEvaluator(data, split_rows(data, "random", (0.8, 0, 0.2)), relevance_threshold=4)
    return Comparison(evaluator, pd.DataFrame(rows), {}, tmp_path)


def test_models_are_behind_the_best_where_intervals_and_seeds_say_so(compared):
    best, found = compared.behind("ndcg@10")
    assert best in ("ncf", "gru") and set(found) == {"ncf", "gru", "EASE", "content"} - {best}
    other = "gru" if best == "ncf" else "ncf"
    expected = difference(*(compared.units["ndcg@10"][name] for name in (best, "EASE")), among=3)  # content is left out
    assert tuple(found["EASE"]) == pytest.approx(tuple(expected))
    lines = {line.split(" | ")[2]: line for line in compared.behind_table().splitlines() if line.startswith("| NDCG")}
    assert lines[other].endswith("| no difference is shown |") and lines["EASE"].endswith("| behind |")
    assert lines["content"].endswith("| fewer than 3 seeds, no claim |")


def test_of_many_equal_models_the_best_is_hardly_ever_ahead(compared):
    """Of twelve equal models, the worst is reported as behind in about one comparison of twenty."""
    random, wrong = np.random.default_rng(2), 0
    for _ in range(60):
        user = random.random(60)
        models = [
            [mean_over_users(user + 0.02 * random.normal() + 0.2 * random.normal(size=60)) for _ in range(3)]
            for _ in range(12)
        ]
        models.sort(key=mean)
        wrong += difference(models[-1], models[0], among=12).p <= 0.05
    assert wrong <= 7  # 3 expected; 60 draws at 5 % give more than 7 in one case of 100


def test_an_error_is_behind_where_it_is_higher(compared, tmp_path):
    for name, error in (("ncf", 0.8), ("EASE", 0.9)):
        squared = np.random.default_rng(1).gamma(2, error**2 / 2, 300)
        save_units(tmp_path / f"{name}-0.npz", {"rmse": UnitMetric(squared, np.ones(300), root=True)})
    rows = pd.DataFrame([{"model": name, "seed": 0, "settings": "{}", "trials": 0} for name in ("ncf", "EASE")])
    best, found = dataclasses.replace(compared, done=rows).behind("rmse")
    one = found["EASE"]
    assert best == "ncf" and one.low < one.value < one.high and one.value > 0


def test_cold_movies_have_columns_of_their_own(places, tmp_path):
    models = ("most popular", "user + movie bias", "genre kNN")
    flags = ("--output", tmp_path / "out", "--split", "cold-movies", "--models", *models)
    main_here(compare_baselines, *places, *flags)
    found = {row["model"]: row for row in rows_of(tmp_path / "out/comparison.csv")}
    assert float(found["user + movie bias"]["cold_auc"]) == 0.5  # a user's cold movies all look alike to it
    assert float(found["genre kNN"]["cold_rmse"]) > 0 and found["most popular"]["cold_rmse"] == ""
    # neither knows anything about cold movies: ties, which count equally against both
    assert found["most popular"]["cold_ndcg@10"] == found["user + movie bias"]["cold_ndcg@10"]
    text = (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert "| RMSE | genre kNN | user + movie bias | " in text or "| RMSE | user + movie bias | genre kNN | " in text
    assert "| COLD NDCG@10 | " in text
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


def test_a_model_that_the_data_does_not_suit_is_missing_and_the_others_go_on(places, tmp_path, monkeypatch):
    monkeypatch.setattr("Models.Content.MAX_MOVIES", 5)
    data, split = DataConfig(places[1], places[3], ratios=(0.5, 0.3, 0.2)).load()
    settings = compare_baselines.Settings(data=DataConfig(places[1], places[3]))
    row = compare_baselines.measure(RankingEvaluator(data, split, 4), settings, tmp_path, "content", 0)
    assert row["model"] == "content" and "take --preset ncf-ranking" in row["missing"]
