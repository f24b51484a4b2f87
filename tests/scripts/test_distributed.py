"""Two processes under torchrun: the figures of one, files by one, and an end instead of a hang."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, SMALL, recommend_here, rows_of, train_here

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--")


def start_two(script: str, *arguments: object) -> subprocess.Popen:
    words = [*TORCHRUN, str(ROOT / script), *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_two(script: str, *arguments: object) -> str:
    """The output of two processes that are expected to succeed."""
    job = start_two(script, *arguments)
    out, error = job.communicate(timeout=300)
    assert job.returncode == 0, error
    return out


def without_seconds(run: Path) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in rows_of(run / "metrics.csv")]


@pytest.mark.parametrize(
    "flags",
    [
        # 180 training rows: the last batch is a single row, which one of the two ranks has to do without
        ("--preset", "ncf", *SMALL["ncf"], "--batch-size", 179, "--epochs", 3),
        ("--preset", "history", *SMALL["history"], "--batch-size", 40, "--epochs", 3),  # batches of whole users
    ],
    ids=["ncf", "history"],
)
def test_two_processes_find_what_one_finds(places, tmp_path, flags):
    train_here(*places, "--run", tmp_path / "one", *flags)
    out = run_two("train.py", *places, "--run", tmp_path / "two", *flags)
    assert out.count("Best epoch") == 1  # one of them speaks
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}
    for one, two in zip(without_seconds(tmp_path / "one"), without_seconds(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    tested = [rows_of(tmp_path / run / "test_predictions.csv") for run in ("one", "two")]
    for one, two in zip(*tested, strict=True):  # every row once, in the same order
        assert (one["userId"], one["movieId"]) == (two["userId"], two["movieId"])
        assert float(one["prediction"]) == pytest.approx(float(two["prediction"]), abs=1e-3)
    if "ncf" in flags:
        check_final_trainings(tmp_path)


def check_final_trainings(folder: Path) -> None:
    train_here("--final", folder / "one", "--run", folder / "one-final")
    out = run_two("train.py", "--final", folder / "one", "--run", folder / "two-final")
    assert out.count("all 360 ratings;") + out.count("all 360 ratings for") == 1
    files = [{path.name for path in (folder / f"{name}-final").iterdir()} for name in ("one", "two")]
    assert files[0] == files[1] and "final.json" in files[0]
    for one, two in zip(*(without_seconds(folder / f"{name}-final") for name in ("one", "two")), strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_ranking_is_measured_over_all_users_once(places, tmp_path):
    flags = ("--preset", "autoencoder", "--relevance-threshold", 3, "--epochs", 1, "--batch-size", 8)
    flags += ("--network-weight", 0)  # EASE alone, without chance
    train_here(*places, "--run", tmp_path / "one", *flags)
    run_two("train.py", *places, "--run", tmp_path / "two", *flags)
    one, two = (rows_of(tmp_path / run / "test_topn.csv") for run in ("one", "two"))
    assert [(row["userId"], row["movieId"]) for row in one] == [(row["userId"], row["movieId"]) for row in two]


def test_two_processes_share_the_recommendations_of_all_users(tiny_run, tmp_path):
    flags = ("--run", tiny_run, "--all-users", "--format", "csv", "--output")
    recommend_here(*flags, tmp_path / "one.csv")
    run_two("generate_recommendation.py", *flags, tmp_path / "two.csv")
    one, two = (list(csv.DictReader((tmp_path / name).open())) for name in ("one.csv", "two.csv"))
    names = ("userId", "rank", "movieId")
    assert len(one) == 300
    assert [[row[name] for name in names] for row in one] == [[row[name] for name in names] for row in two]
    run_two("generate_recommendation.py", "--run", tiny_run, "--export-vectors", tmp_path / "two.npz")
    assert (tmp_path / "two.npz").is_file()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_job_and_the_training_goes_on_from_there(places, tmp_path):
    flags = ("--preset", "ncf", *SMALL["ncf"], "--batch-size", 8, "--patience", 0, "--epochs", 20)
    run_two("train.py", *places, "--run", tmp_path / "whole", *flags)
    job = start_two("train.py", *places, "--run", tmp_path / "killed", *flags)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed/metrics.csv").is_file():
        assert time.monotonic() < deadline, "no epoch was finished"
        time.sleep(0.05)
    os.kill(children_of(job.pid)[-1], signal.SIGKILL)
    _, error = job.communicate(timeout=120)
    assert job.returncode == 1
    assert "Signal 9 (SIGKILL)" in error
    assert not (tmp_path / "killed/test_metrics.json").exists()
    run_two("train.py", "--resume", tmp_path / "killed")
    assert without_seconds(tmp_path / "killed") == without_seconds(tmp_path / "whole")


def children_of(pid: int) -> list[int]:
    """The processes that this one started, oldest first."""
    found = [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if parent_of(path) == pid]
    return sorted(map(int, found))


def parent_of(stat: Path) -> int | None:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:  # it has ended meanwhile
        return None
