"""Equal tuning: the same number of trials for each model, on validation rows alone, kept and resumed."""

import dataclasses
import json

import pytest
import torch
from helpers import rows_of

from Models.configs import PRESETS, DataConfig, RunConfig
from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import split_rows
from resultAnalyze import tuning
from resultAnalyze.baselines import BASELINES
from resultAnalyze.tuning import SPACES, Range, default_settings, wanted, with_settings


@pytest.fixture(scope="module")
def evaluator(data) -> RankingEvaluator:
    return RankingEvaluator(data, split_rows(data, "random", (0.5, 0.3, 0.2)), relevance_threshold=4)


def tuned(*arguments) -> dict:
    return tuning.tuned(*arguments, torch.device("cpu"))


def on_tiny(preset: str, places: tuple):
    """A preset's configuration for a short training on the small data set."""
    config = PRESETS[preset]
    data = DataConfig(folder=places[1], features=places[3], ratios=(0.5, 0.3, 0.2))
    optim = dataclasses.replace(config.optim, epochs=2)
    return dataclasses.replace(config, data=data, optim=optim, run=RunConfig())


@pytest.mark.parametrize("name", [*BASELINES, *PRESETS])
def test_every_model_has_a_space_that_holds_its_defaults(name):
    """Except models without settings."""
    if name not in SPACES:
        assert name in ("most popular", "most popular of the last week")
        return
    config = PRESETS.get(name)
    for key, value in default_settings(name, config).items():
        bounds = SPACES[name][key]
        if isinstance(bounds, Range):
            assert bounds.low <= value <= bounds.high and type(value) is type(bounds.low), key
        else:
            assert value in bounds, key
    if config:
        assert with_settings(config, default_settings(name, config)) == config


def test_trials_are_kept_and_an_interrupted_tuning_ends_as_one_that_was_not(evaluator, tmp_path, monkeypatch):
    whole = tuned("EASE", evaluator, None, 6, tmp_path / "whole")
    assert (
        tuned("EASE", evaluator, None, 3, tmp_path / "parts") and len(rows_of(tmp_path / "parts/trials-EASE.csv")) == 3
    )
    assert tuned("EASE", evaluator, None, 6, tmp_path / "parts") == whole
    one, other = (rows_of(tmp_path / name / "trials-EASE.csv") for name in ("whole", "parts"))
    assert [(row["settings"], row["value"]) for row in one] == [(row["settings"], row["value"]) for row in other]
    assert json.loads(one[0]["settings"]) == {"penalty": 500.0} and len({row["settings"] for row in one}) == 6
    assert whole == json.loads(max(one, key=lambda row: float(row["value"]))["settings"])
    monkeypatch.setattr(tuning, "validate", lambda *_: pytest.fail("a trial was made again"))
    assert tuned("EASE", evaluator, None, 6, tmp_path / "whole") == whole


@pytest.mark.parametrize(("name", "flags"), [("ncf", ("lr", "epochs")), ("ncf-ranking", ("dropout", "lr"))])
def test_presets_are_trained_without_a_test_and_not_kept(evaluator, places, tmp_path, name, flags, monkeypatch):
    space = {flag: SPACES[name][flag] for flag in flags} | ({"epochs": Range(1, 3)} if "epochs" in flags else {})
    monkeypatch.setitem(SPACES, name, space)
    monkeypatch.setattr("train.test", lambda *_: pytest.fail("the test rows were looked at"))
    best = tuned(name, evaluator, on_tiny(name, places), 3, tmp_path)
    rows = rows_of(tmp_path / f"trials-{name}.csv")
    better = min if name == "ncf" else max
    assert best == json.loads(better(rows, key=lambda row: float(row["value"]))["settings"]) and len(rows) == 3
    assert [path.name for path in tmp_path.iterdir()] == [f"trials-{name}.csv"]


def test_no_test_rating_affects_the_choice(data, evaluator, tmp_path):
    rating = data.rating.copy()
    rating[evaluator.split.test] = 1 + 4 * (rating[evaluator.split.test] < 3)
    changed = dataclasses.replace(evaluator, data=dataclasses.replace(data, rating=rating))
    for name in ("user + movie bias", "EASE, weighted by rating"):
        found = [tuned(name, one, None, 4, tmp_path / str(k)) for k, one in enumerate((evaluator, changed))]
        one, other = (rows_of(tmp_path / str(k) / f"trials-{name.replace(' ', '-')}.csv") for k in range(2))
        assert found[0] == found[1] and [row["value"] for row in one] == [row["value"] for row in other]


def test_a_trial_that_diverges_is_kept_and_not_chosen(evaluator, places, tmp_path, monkeypatch):
    monkeypatch.setitem(SPACES, "ncf-ranking", {"lr": Range(1e-3, 1e30, True)})
    best = tuned("ncf-ranking", evaluator, on_tiny("ncf-ranking", places), 5, tmp_path)
    rows = rows_of(tmp_path / "trials-ncf-ranking.csv")
    assert len(rows) == 5 and any(row["value"] == "" for row in rows)
    assert best["lr"] < 1e10


@pytest.mark.parametrize(("seconds", "n"), [(10, 30), (300, 30), (600, 15), (4000, 3)])
def test_models_whose_trials_take_long_have_fewer(seconds, n):
    assert wanted(30, []) == 30 and wanted(30, [{"seconds": seconds}] * 2) == n
    assert wanted(2, [{"seconds": 4000}]) == 2


def test_a_trial_that_a_library_refuses_is_kept_without_a_value(evaluator, tmp_path, monkeypatch, capsys):
    """With an error of its own, as implicit does where factors are not finite."""

    class FitError(Exception):
        pass

    fit = BASELINES["EASE"].fit

    def fails_above_the_default(ratings, seed, penalty=500.0):
        if penalty > 500:
            raise FitError("NaN encountered in factors")
        return fit(ratings, seed, penalty)

    monkeypatch.setitem(BASELINES, "EASE", BASELINES["EASE"]._replace(fit=fails_above_the_default))
    best = tuned("EASE", evaluator, None, 6, tmp_path)
    rows = rows_of(tmp_path / "trials-EASE.csv")
    assert len(rows) == 6 and any(row["value"] == "" for row in rows) and best["penalty"] <= 500
    assert "This trial failed (FitError: NaN encountered in factors)." in capsys.readouterr().out
