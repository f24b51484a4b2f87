"""kill -9 at random moments: every file left behind is whole, and the next command continues from it."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forked import SOAK, Script, check_files_are_whole, server
from helpers import TINY_TRAINING, rows_of, states_are_equal, without_times

import generate_recommendation
import train
from utils import BERT
from utils.features import read_features
from utils.files import read_json
from utils.pickles import read_pickle
from utils.readers import read_dataset
from utils.runs import FINAL, is_finished

KILLS = 300 if SOAK else 6  # for each kind of work
EARLY_STOP = ("--epochs", 60, "--patience", 2)


def duration(start: Callable[[], Script]) -> float:
    """Seconds that the work takes without a kill, so that kills can fall anywhere in it."""
    server()  # its start is not part of the work
    started = time.monotonic()
    script = start()
    assert script.wait() == 0, script.output
    return time.monotonic() - started


@pytest.mark.parametrize("more", [(), EARLY_STOP], ids=["all epochs", "early stop"])
def test_a_killed_and_resumed_training_ends_as_one_without_kills(places, tmp_path, more):
    flags, whole = (*places, *TINY_TRAINING, *more), tmp_path / "whole"
    seconds = duration(lambda: Script(train.main, *flags, "--run", whole))
    assert len(rows_of(whole / "metrics.csv")) < 60
    for run in killed_trainings(flags, tmp_path / "run", seconds, KILLS // 2):
        assert without_times(run) == without_times(whole)
        assert all(states_are_equal(run / name, whole / name) for name in ("best.pt", "last.pt"))


def test_a_killed_and_resumed_final_training_ends_as_one_without_kills(tiny_run, tmp_path):
    flags, whole = ("--final", tiny_run), tmp_path / "whole"
    seconds = duration(lambda: Script(train.main, *flags, "--run", whole))
    for run in killed_trainings(flags, tmp_path / "run", seconds, KILLS // 2):
        one, other = (read_json(folder / FINAL) | {"wall_seconds": None} for folder in (run, whole))
        assert one == other
        assert all(states_are_equal(run / name, whole / name) for name in ("best.pt", "last.pt"))


def killed_trainings(flags: tuple, run: Path, seconds: float, n_kills: int):
    """Training runs, killed at random moments and resumed until they finish; at least `n_kills` kills in all.

    After each kill the files are checked. A training killed before it has written its configuration, or after its last
    file, is not resumed.
    """
    kills, moments = 0, random.Random(0)
    while kills < n_kills:
        shutil.rmtree(run, ignore_errors=True)
        code = Script(train.main, *flags, "--run", run).stop(signal.SIGKILL, moments.uniform(0, seconds))
        while code:
            assert code == -signal.SIGKILL
            kills += 1
            check_files_are_whole(run)
            if is_finished(run) or not (run / "config.json").is_file():
                break
            code = Script(train.main, "--resume", run).stop(signal.SIGKILL, moments.uniform(0, 2 * seconds))
        if is_finished(run):
            yield run


def test_a_killed_extraction_leaves_the_old_features_or_the_new(tiny, tiny_encoder, tmp_path):
    features = tmp_path / "movie_bert_dict.pkl"
    movies = read_dataset(tiny).movies

    def extract(pooling: str) -> Script:
        places = ("--data", tiny, "--features", features, "--encoder", tiny_encoder)
        return Script(BERT.main, *places, "--pooling", pooling)

    tables = {}
    for pooling in ("mean", "cls"):
        seconds = duration(lambda pooling=pooling: extract(pooling))
        tables[pooling] = read_features(features, movies).vectors
    moments = random.Random(1)
    for kill in range(KILLS):
        old, new = ("cls", "mean") if kill % 2 == 0 else ("mean", "cls")
        extract(new).stop(signal.SIGKILL, moments.uniform(0, seconds))
        found = np.stack(list(read_pickle(features).values()))
        assert any(np.array_equal(found, tables[name]) for name in (old, new))
        assert extract(new).wait() == 0
        assert np.array_equal(read_features(features, movies).vectors, tables[new])


def test_killed_recommendations_leave_the_old_file_or_the_new(tiny_run, tmp_path):
    output = tmp_path / "top10.csv"
    flags = ("--run", tiny_run, "--all-users", "--format", "csv", "--output", output)
    seconds = duration(lambda: Script(generate_recommendation.main, *flags))
    whole, moments = output.read_text(), random.Random(2)
    for _ in range(KILLS):
        output.write_text("old content")
        Script(generate_recommendation.main, *flags).stop(signal.SIGKILL, moments.uniform(0, seconds))
        assert output.read_text() in ("old content", whole)
    assert Script(generate_recommendation.main, *flags).wait() == 0
    assert output.read_text() == whole
