"""Bad moments: a full disk, no permission, no memory, no network, Ctrl-C, two training runs into one folder."""

import functools
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import Script, check_files_are_whole, explanation, limit_resource, resource, wait_for
from helpers import TINY_TRAINING

import generate_recommendation
import train
from utils import BERT
from utils.download import fetch_dataset
from utils.files import UserError

LONG_TRAINING = (*TINY_TRAINING, "--epochs", 4000)


def test_ctrl_c_is_a_clean_stop(places, tmp_path):
    run = tmp_path / "run"
    started = Script(train.main, *places, "--run", run, *LONG_TRAINING)
    wait_for(run / "last.pt")
    assert started.stop(signal.SIGINT) == 1
    assert "--resume" in started.output and "Traceback" not in started.output
    check_files_are_whole(run)
    again = Script(train.main, "--resume", run)
    wait_for(run / "metrics.csv")
    assert again.stop(signal.SIGINT, after=0.5) == 1
    assert "Traceback" not in again.output


@pytest.mark.parametrize("size", [0, 100, 2_000, 20_000])
def test_a_full_disk_is_explained_and_loses_nothing(places, tiny, tiny_run, tiny_encoder, tmp_path, size):
    """No file may grow beyond `size` bytes, as on a full disk."""
    run, output, features = tmp_path / "run", tmp_path / "top10.csv", tmp_path / "movie_bert_dict.pkl"
    output.write_text("old")
    features.write_text("old")
    full = functools.partial(limit_resource, resource.RLIMIT_FSIZE, size)
    explanation(Script(train.main, *places, "--run", run, *TINY_TRAINING, before=full))
    assert not (run / "test_metrics.json").is_file()
    check_files_are_whole(run)
    recommendations = ("--run", tiny_run, "--all-users", "--format", "csv", "--output", output)
    if size < 20_000:
        explanation(Script(generate_recommendation.main, *recommendations, before=full))
        assert output.read_text() == "old"
    extraction = ("--data", tiny, "--encoder", tiny_encoder, "--features", features)
    if size < 2_000:
        explanation(Script(BERT.main, *extraction, before=full))
        assert features.read_text() == "old"
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]  # no partial file is left behind


@pytest.mark.skipif(sys.platform != "linux", reason="needs an effective limit on memory")
def test_too_little_memory_is_explained(places, tmp_path):
    large = ("--run", tmp_path / "run", "--preset", "ncf", "--embedding-dim", 10**8)
    little = functools.partial(limit_resource, resource.RLIMIT_AS, 300 << 20)
    said = explanation(Script(train.main, *places, *large, before=little))
    assert "Out of memory" in said and "lower --batch-size" in said


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_a_full_gpu_memory_is_explained():
    assert "lower --batch-size" in explanation(Script(full_gpu))


def test_two_trainings_do_not_share_a_run_folder(places, tmp_path):
    run = tmp_path / "run"
    first = Script(train.main, *places, "--run", run, *LONG_TRAINING)
    wait_for(run / "last.pt")
    assert "Another training is writing" in explanation(Script(train.main, "--resume", run))
    assert "already there" in explanation(Script(train.main, *places, "--run", run, *TINY_TRAINING))
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    again = Script(train.main, "--resume", run)  # a killed process no longer holds its lock
    assert again.stop(signal.SIGINT, after=1) == 1 and "Stopped" in again.output


@pytest.mark.skipif(sys.platform != "linux", reason="needs /sys, where nobody may write")
def test_a_folder_without_permission_is_explained(places, tiny_run):
    assert "/sys" in explanation(Script(train.main, *places, "--run", "/sys/run", *TINY_TRAINING))
    explanation(Script(generate_recommendation.main, "--run", tiny_run, "--output", "/sys/top10.csv"))


def test_a_device_is_written_to_and_not_replaced(tiny_run):
    arguments = ("--run", tiny_run, "--format", "ids", "--output", "/dev/null")
    assert Script(generate_recommendation.main, *arguments).wait() == 0
    assert Path("/dev/null").is_char_device()


def fail(*arguments: object, **options: object) -> None:
    raise AssertionError("the network or another command was used")


def forbid_network_and_commands() -> None:
    """Make every connection and every command, pip included, end the script with a traceback."""
    socket.socket.connect = socket.getaddrinfo = subprocess.run = fail


def test_offline_nothing_is_fetched(tiny, tiny_encoder, tmp_path):
    places = ("--data", tiny, "--features", tmp_path / "movie_bert_dict.pkl", "--offline")
    local, unknown = (
        Script(BERT.main, *places, "--encoder", encoder, before=forbid_network_and_commands)
        for encoder in (tiny_encoder, "some/unknown-model")
    )
    assert local.wait() == 0
    assert "--offline" in explanation(unknown)
    with pytest.raises(UserError, match="--offline"):
        fetch_dataset("ml-1m", tmp_path, offline=True)
