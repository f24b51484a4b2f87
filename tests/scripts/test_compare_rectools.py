"""RecTools beside our models: what it is given, how its lists are measured, and the library itself if installed."""

import subprocess

import numpy as np
import pandas as pd
import pytest
from helpers import RATIOS, main_here, rows_of

from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import split_rows
from resultAnalyze import compare_rectools
from resultAnalyze.compare_rectools import PYTHON, SCRIPT
from utils.files import UserError, read_json, write_json


@pytest.fixture(scope="module")
def evaluator(data):
    return RankingEvaluator(data, split_rows(data, "leave-one-out", RATIOS), relevance_threshold=1)


def test_of_tested_ratings_the_library_gets_nothing_but_the_time(evaluator, data, tmp_path):
    compare_rectools.write_rows(evaluator, tmp_path)
    known, asked = pd.read_csv(tmp_path / "known.csv"), pd.read_csv(tmp_path / "asked.csv")
    split = evaluator.split
    pairs = set(zip(known["user_id"], known["item_id"], strict=True))
    assert not pairs & set(zip(data.user[split.test], data.movie[split.test], strict=True))
    assert len(pairs) == len(split.train) + len(split.val) and known["validates"].sum() == len(split.val)
    order = data.by_user_and_time(evaluator.split.known)
    assert known["item_id"].tolist() == data.movie[order].tolist()
    times = dict(zip(data.user[split.test].tolist(), data.time[split.test].tolist(), strict=True))
    assert dict(zip(asked["user_id"], asked["datetime"], strict=True)) == times and list(asked) == [
        "user_id",
        "datetime",
    ]


def test_lists_are_measured_by_hand(evaluator, data, tmp_path):
    """The tested movie of user 0 is listed first, that of user 1 third, and those of the other users not at all."""
    test = dict(zip(data.user[evaluator.split.test].tolist(), data.movie[evaluator.split.test].tolist(), strict=True))
    others = [movie for movie in range(27) if movie not in test.values()]
    rows = [(0, 1, test[0]), (1, 1, others[0]), (1, 2, others[1]), (1, 3, test[1]), (2, 1, others[0])]
    pd.DataFrame(rows, columns=["user_id", "rank", "item_id"]).to_csv(tmp_path / "HSTU-0.csv", index=False)
    write_json(tmp_path / "HSTU-0.json", {"epochs": 3, "seconds": 1.0, "request_time": True})
    found = compare_rectools.measure(evaluator, tmp_path / "HSTU-0")
    assert found["hr@10"] == pytest.approx(2 / 30) and found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(4)) / 30)
    known = evaluator.split.known
    latest = {user: data.time[known][data.user[known] == user].max() for user in range(30)}
    times = dict(zip(data.user[evaluator.split.test].tolist(), data.time[evaluator.split.test].tolist(), strict=True))
    later = [user for user in range(30) if times[user] > latest[user]]
    hits = sum(user in (0, 1) for user in later)
    assert found["later second hr@10"] == pytest.approx(hits / len(later)) and hits > 0


def test_without_the_library_one_sentence_says_what_to_do(places, tmp_path):
    with pytest.raises(UserError, match=r"There is no .*python: make \.venv-rectools/requirements-rectools.txt"):
        main_here(compare_rectools, *places, "--python", tmp_path / "python", "--output", tmp_path / "out")


def test_only_splits_with_one_next_movie_are_compared(places, tmp_path):
    (tmp_path / "python").write_text("")
    with pytest.raises(UserError, match="asked for each user's next movie: take --split leave-one-out"):
        flags = ("--split", "user-time", "--python", tmp_path / "python", "--output", tmp_path / "out")
        main_here(compare_rectools, *places, *flags)


def test_a_failure_of_the_library_is_said(places, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\necho 'no module named rectools' >&2\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(UserError, match=r"SASRec of RecTools failed \(no module named rectools\): make"):
        main_here(compare_rectools, *places, "--python", tmp_path / "python", "--output", tmp_path / "out")


@pytest.mark.skipif(not PYTHON.is_file(), reason="make .venv-rectools/requirements-rectools.txt was not run")
def test_the_library_ranks_the_same_rows(places, tmp_path):
    flags = (*places, "--models", "SASRec", "HSTU", "--epochs", 1, "--output", tmp_path / "out")
    main_here(compare_rectools, *flags)
    rows = rows_of(tmp_path / "out/rectools.csv")
    assert [(row["model"], row["request_time"]) for row in rows] == [("SASRec", "False"), ("HSTU", "True")]
    assert all(0 <= float(row["ndcg@10"]) <= float(row["hr@10"]) <= 1 for row in rows)
    known = pd.read_csv(tmp_path / "out/known.csv")
    listed = pd.read_csv(tmp_path / "out/HSTU-0.csv")
    assert len(listed.merge(known, on=["user_id", "item_id"])) == 0


@pytest.mark.skipif(not PYTHON.is_file(), reason="make .venv-rectools/requirements-rectools.txt was not run")
def test_an_interrupted_training_of_the_library_goes_on_with_its_weights(evaluator, tmp_path):
    """The second epoch, in another process, starts from the weights that the first one ended with."""
    compare_rectools.write_rows(evaluator, tmp_path)
    code = f"""
import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})
import rectools_models
before, fit = [], rectools_models.ResumingTrainer.fit
def watched(self, model, *loaders):
    def tell():
        print("weights", sum(float(one.abs().sum()) for one in model.parameters()))
    model.on_train_epoch_start = model.on_train_end = tell
    fit(self, model, *loaders)
rectools_models.ResumingTrainer.fit = watched
rectools_models.shutil.rmtree = lambda path: None
rectools_models.main()
"""
    said = []
    for epochs, minutes in ((1, 9), (2, 9), (9, 0)):  # the last time, no minutes are left
        flags = ["--folder", str(tmp_path), "--model", "SASRec", "--epochs", str(epochs), "--minutes", str(minutes)]
        done = subprocess.run([str(PYTHON), "-c", code, *flags], capture_output=True, text=True, check=True)
        said.append([line.split()[1] for line in done.stdout.splitlines() if line.startswith("weights")])
        assert read_json(tmp_path / "SASRec-0.json")["epochs"] == min(epochs, 2)
    assert len(said[0]) == len(said[1]) == 2 and said[1][0] == said[0][-1] != said[0][0]
