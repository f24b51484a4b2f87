"""Two processes under torchrun: the figures of one process, files written by one, and an end instead of a hang."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, SMALL, TINY_TRAINING, recommend_here, rows_of, train_here

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
        # 180 training rows: the last batch is a single row, so one of the two ranks gets none
        ("--preset", "ncf", *SMALL["ncf"], "--batch-size", 179, "--epochs", 3),
        ("--preset", "history", *SMALL["history"], "--batch-size", 40, "--epochs", 3),  # batches of whole users
    ],
    ids=["ncf", "history"],
)
def test_two_processes_find_what_one_finds(places, tmp_path, flags):
    train_here(*places, "--run", tmp_path / "one", *flags)
    out = run_two("train.py", *places, "--run", tmp_path / "two", *flags)
    assert out.count("Best epoch") == 1  # only one of them prints
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


# --- tables of which each process holds a part ---------------------------------------------------

SHARDED = ("--preset", "original", *SMALL["original"], "--dropout", 0, "--epochs", 3)


def test_two_processes_that_share_the_tables_out_find_what_one_finds(places, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    train_here(*places, "--run", one, *SHARDED)
    run_two("train.py", *places, "--run", two, *SHARDED, "--shard", "rows")
    assert_equal_figures(one, two)
    tested = [[float(row["prediction"]) for row in rows_of(run / "test_predictions.csv")] for run in (one, two)]
    assert tested[0] == pytest.approx(tested[1], abs=1e-5)
    lists = [recommend_here("--run", run, "--user", 1, "--format", "ids") for run in (one, two)]
    assert lists[0] == lists[1]  # the tables are whole in best.pt

    # and training goes on with another number of processes
    for run in (one, two):
        want_more_epochs(run, 5)
    run_two("train.py", "--resume", one)
    train_here("--resume", two)
    train_here(*places, "--run", tmp_path / "whole", *SHARDED, "--epochs", 5)
    for run in (one, two):
        assert len(rows_of(run / "metrics.csv")) == 5
        assert_equal_figures(tmp_path / "whole", run)


def assert_equal_figures(one: Path, two: Path) -> None:
    for row, other in zip(without_seconds(one), without_seconds(two), strict=True):
        assert row == pytest.approx(other, abs=1e-6)


def want_more_epochs(run: Path, epochs: int) -> None:
    """Turn a finished training into one that was stopped before its last epochs."""
    (run / "test_metrics.json").unlink()
    record = json.loads((run / "config.json").read_text())
    record["config"]["optim"]["epochs"] = epochs
    record["config"]["run"]["shard"] = "rows"
    (run / "config.json").write_text(json.dumps(record))


def test_each_process_holds_half_of_the_tables_and_of_the_optimizers_moments(tmp_path):
    script = tmp_path / "held.py"
    script.write_text(
        """if True:
        import torch
        from torch import nn
        from utils import distributed

        model = nn.Module()
        model.looked_up, model.user = ("user",), nn.Embedding(1000, 8)
        with distributed.process_group(torch.device("cpu")):
            distributed.shard_tables(model)
            optimizer = torch.optim.AdamW(model.parameters(), fused=True)
            model.user(torch.tensor([1, 999])).sum().backward()
            optimizer.step()
            weight = model.user.weight
            parts = [weight, weight.grad, *(optimizer.state[weight][name] for name in ("exp_avg", "exp_avg_sq"))]
            held = distributed.all_gather([part.to_local().untyped_storage().nbytes() for part in parts])
            print("held", held)
        """
    )
    done = subprocess.run(
        [*TORCHRUN, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    half = 500 * 8 * 4
    assert f"held {[[half] * 4] * 2}" in done.stdout, done.stderr


def test_a_model_that_needs_its_tables_whole_is_refused(run_script, places, tmp_path):
    done = run_script("train.py", *places, "--run", tmp_path / "run", *TINY_TRAINING, "--shard", "rows", code=1)
    assert "The model Recommender needs whole tables: leave --shard out, or use --preset original." in done.stderr


# --- rankings and lists --------------------------------------------------------------------------


def test_ranking_is_measured_over_all_users_once(places, tmp_path):
    flags = ("--preset", "autoencoder", "--relevance-threshold", 3, "--epochs", 1, "--batch-size", 8)
    flags += ("--network-weight", 0)  # EASE alone, which is deterministic
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
    flags = ("--preset", "ncf", *SMALL["ncf"], "--batch-size", 8, "--patience", 0, "--epochs", 10)
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
    except FileNotFoundError:  # it has just ended
        return None
