"""Bad moments: a full disk, no permission, no memory, no network, Ctrl-C, two trainings into one folder."""

import functools
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY_TRAINING
from forked import Script, explained, limited, resource, wait_for
from test_kills import check_unfinished

import generate_recommendation
import train
from utils import BERT
from utils.download import fetch_dataset
from utils.files import UserError


def test_ctrl_c_is_a_clean_stop(places, tiny_run, tmp_path):
    run = tmp_path / "run"
    started = Script(train.main, *places, "--run", run, *TINY_TRAINING, "--epochs", 4000)
    wait_for(run / "last.pt")
    assert started.stopped(0, signal.SIGINT) == 1
    assert "--resume" in started.said and "Traceback" not in started.said
    check_unfinished(run)
    again = Script(train.main, "--resume", run)
    wait_for(run / "metrics.csv")
    assert again.stopped(0.5, signal.SIGINT) == 1


@pytest.mark.parametrize("size", [0, 100, 2_000, 20_000])
def test_a_full_disk_is_explained_and_loses_nothing(places, tiny, tiny_run, tiny_encoder, tmp_path, size):
    """No file may grow beyond `size` bytes, as on a disk that is full."""
    run, output, features = tmp_path / "run", tmp_path / "top10.csv", tmp_path / "movie_bert_dict.pkl"
    output.write_text("old")
    features.write_text("old")
    full = functools.partial(limited, resource.RLIMIT_FSIZE, size)
    explained(Script(train.main, *places, "--run", run, *TINY_TRAINING, before=full))
    assert not (run / "test_metrics.json").is_file()
    check_unfinished(run)
    lists = ("--run", tiny_run, "--all-users", "--format", "csv", "--output", output)
    if size < 20_000:
        explained(Script(generate_recommendation.main, *lists, before=full))
        assert output.read_text() == "old"
    made = ("--data", tiny, "--encoder", tiny_encoder, "--features", features)
    if size < 2_000:
        explained(Script(BERT.main, *made, before=full))
        assert features.read_text() == "old"
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]  # no half of a file stays behind


@pytest.mark.skipif(sys.platform != "linux", reason="wants a limit on memory that holds")
def test_too_little_memory_is_explained(places, tmp_path):
    large = ("--run", tmp_path / "run", "--preset", "ncf", "--embedding", 10**8)
    little = functools.partial(limited, resource.RLIMIT_AS, 300 << 20)
    said = explained(Script(train.main, *places, *large, before=little))
    assert "Out of memory" in said and "lower --batch-size" in said


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_a_gpu_s_full_memory_is_explained():
    assert "lower --batch-size" in explained(Script(full_gpu))


def test_two_trainings_do_not_share_a_run_folder(places, tmp_path):
    run = tmp_path / "run"
    first = Script(train.main, *places, "--run", run, *TINY_TRAINING, "--epochs", 4000)
    wait_for(run / "last.pt")
    assert "Another training is writing" in explained(Script(train.main, "--resume", run))
    assert "already there" in explained(Script(train.main, *places, "--run", run, *TINY_TRAINING))
    assert first.stopped(0, signal.SIGKILL) == -signal.SIGKILL
    again = Script(train.main, "--resume", run)  # a killed process's lock is free
    assert again.stopped(1, signal.SIGINT) == 1 and "Stopped" in again.said


@pytest.mark.skipif(sys.platform != "linux", reason="wants /sys, where nobody may write")
def test_a_folder_without_permission_is_explained(places, tiny_run):
    assert "/sys" in explained(Script(train.main, *places, "--run", "/sys/run", *TINY_TRAINING))
    explained(Script(generate_recommendation.main, "--run", tiny_run, "--output", "/sys/top10.csv"))


def test_a_device_is_written_to_and_stays_one(tiny_run):
    listed = Script(generate_recommendation.main, "--run", tiny_run, "--format", "ids", "--output", "/dev/null")
    assert listed.ended() == 0 and Path("/dev/null").is_char_device()


def reached(*arguments: object, **options: object) -> None:
    raise AssertionError("reached")


def nothing_may_be_reached() -> None:
    """Every connection and every command, pip's as well, would end the script."""
    socket.socket.connect = socket.getaddrinfo = subprocess.run = reached


def test_offline_nothing_is_reached(tiny, tiny_encoder, tmp_path):
    places = ("--data", tiny, "--features", tmp_path / "movie_bert_dict.pkl", "--offline")
    here, unknown = (
        Script(BERT.main, *places, "--encoder", encoder, before=nothing_may_be_reached)
        for encoder in (tiny_encoder, "some/model-that-is-not-here")
    )
    assert here.ended() == 0
    assert "--offline" in explained(unknown)
    with pytest.raises(UserError, match="--offline"):
        fetch_dataset("ml-1m", tmp_path, offline=True)
