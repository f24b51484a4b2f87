"""kill -9 at random moments: what is there is whole, and the next command goes on from it."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_TRAINING
from forked import SOAK, Script, server
from test_train import rows_of, states_are_equal, without_times

import generate_recommendation
import train
from Models.checkpoint import read_checkpoint
from utils import BERT
from utils.features import read_features
from utils.files import read_json, read_pickle
from utils.readers import read_dataset

KILLS = 300 if SOAK else 6  # of each kind of work


def duration(run: Callable[[], Script]) -> float:
    """Seconds that the work takes, so that kills fall anywhere in it."""
    server()  # its start is none of the work
    started = time.monotonic()
    one = run()
    assert one.ended() == 0, one.said
    return time.monotonic() - started


@pytest.mark.parametrize("more", [(), ("--epochs", 60, "--patience", 2)], ids=["all epochs", "early stop"])
def test_a_training_survives_kills_and_ends_as_if_there_had_been_none(places, tmp_path, more):
    """Killed and resumed until it is finished; the weights and metrics are those of the run that was never killed."""
    flags, whole = (*places, *TINY_TRAINING, *more), tmp_path / "whole"
    seconds = duration(lambda: Script(train.main, *flags, "--run", whole))
    assert len(rows_of(whole / "metrics.csv")) < 60
    kills, run, moments = 0, tmp_path / "run", random.Random(0)
    while kills < KILLS // 2:
        shutil.rmtree(run, ignore_errors=True)
        code = Script(train.main, *flags, "--run", run).stopped(moments.uniform(0, seconds), signal.SIGKILL)
        while code:
            assert code == -signal.SIGKILL
            kills += 1
            check_unfinished(run)
            if (run / "test_metrics.json").is_file():  # it was killed after its last deed
                break
            if not (run / "config.json").is_file():  # it had not begun
                shutil.rmtree(run, ignore_errors=True)
                break
            code = Script(train.main, "--resume", run).stopped(moments.uniform(0, 2 * seconds), signal.SIGKILL)
        if (run / "test_metrics.json").is_file():
            assert without_times(run) == without_times(whole)
            assert all(states_are_equal(run / name, whole / name) for name in ("best.pt", "last.pt"))


def check_unfinished(run: Path) -> None:
    """Whatever is there is whole."""
    for name, read in {
        "config.json": read_json,
        "best.pt": read_checkpoint,
        "last.pt": read_checkpoint,
        "test_metrics.json": read_json,
    }.items():
        if (run / name).is_file():
            read(run / name)
    if (run / "metrics.csv").is_file():
        assert all(len(row) == 6 and None not in row.values() for row in rows_of(run / "metrics.csv"))


def test_killed_extraction_leaves_old_features_or_new(tiny, tiny_encoder, tmp_path):
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
        extract(new).stopped(moments.uniform(0, seconds), signal.SIGKILL)
        found = np.stack(list(read_pickle(features).values()))
        assert any(np.array_equal(found, tables[name]) for name in (old, new))
        assert extract(new).ended() == 0
        assert np.array_equal(read_features(features, movies).vectors, tables[new])


def test_killed_lists_leave_the_old_file_or_the_new_one(tiny_run, tmp_path):
    output = tmp_path / "top10.csv"
    flags = ("--run", tiny_run, "--all-users", "--format", "csv", "--output", output)
    seconds = duration(lambda: Script(generate_recommendation.main, *flags))
    whole, moments = output.read_text(), random.Random(2)
    for _ in range(KILLS):
        output.write_text("what was there")
        Script(generate_recommendation.main, *flags).stopped(moments.uniform(0, seconds), signal.SIGKILL)
        assert output.read_text() in ("what was there", whole)
    assert Script(generate_recommendation.main, *flags).ended() == 0
    assert output.read_text() == whole
