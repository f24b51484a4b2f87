"""null_experiment.py: it is complete, resumes where it stopped, and counts what it claims to count."""

import numpy as np
import pytest
from helpers import main_here, rows_of

from resultAnalyze import null_experiment
from resultAnalyze.intervals import mean_over_users
from utils.files import UserError

FLAGS = ("--trainings", 4, "--compared", 2, "--draws", 20)


@pytest.mark.parametrize(("preset", "metrics"), [("ncf", {"rmse"}), ("content", {"hr@10", "ndcg@10", "recall@10"})])
def test_it_is_complete_and_keeps_its_trainings(places, tmp_path, preset, metrics):
    flags = (*places, "--preset", preset, "--output", tmp_path / "out", *FLAGS)
    main_here(null_experiment, *flags)
    table = rows_of(tmp_path / "out" / "null_experiment.csv")
    assert {row["metric"] for row in table} == metrics and {row["seeds"] for row in table} == {"2"}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").glob("*/best.pt")}
    text = (tmp_path / "out" / "null_experiment.md").read_text()
    main_here(null_experiment, *flags)
    assert len(times) == 4 and all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert (tmp_path / "out" / "null_experiment.md").read_text() == text and "4 trainings of " + preset in text


def test_false_claims_are_those_of_intervals_without_0():
    """Where training runs differ more than users do, nearly every interval over users alone excludes 0."""
    random = np.random.default_rng(0)
    trainings = [{"auc": mean_over_users(value + random.normal(0, 0.01, 40))} for value in random.normal(size=24)]
    found = null_experiment.false_claims(trainings, (3, 5), 400)
    assert (found["false claims"] < 0.08).all() and (found["false claims over units alone"] > 0.9).all()


@pytest.mark.parametrize("compared", [(1,), (3,), (2, 5)])
def test_what_cannot_be_drawn_is_refused(places, tmp_path, compared):
    with pytest.raises(UserError, match="from 2 to half of --trainings"):
        main_here(null_experiment, *places, "--output", tmp_path, "--trainings", 4, "--compared", *compared)
