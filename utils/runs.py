"""Run folders: one a training, finished once its test metrics are written."""

import csv
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from utils.files import RUNS, UserError, write_aside

TEST_METRICS = "test_metrics.json"  # written last: its presence says that the run is finished


def new_run(folder: Path | None) -> Path:
    """Make the folder of a new run: the one named, or one in runs/ called after the time.

    Raises:
        UserError: the named folder is already there.
    """
    folder = Path(folder) if folder else RUNS / f"{datetime.now():%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"{folder} is already there: name another folder with --run.") from error
    return folder


def locked(folder: Path) -> FileLock:
    """A lock on the run folder until `unlock`, or until this process ends in whatever way.

    Raises:
        UserError: another training holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"Another training is writing into {folder}: wait for it, or stop it first.") from error
    return lock


def unlock(lock: FileLock) -> None:
    """Give the lock back, and leave no file of it."""
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def finished_run(folder: Path | None) -> Path:
    """The named run, or the newest one in runs/.

    Raises:
        UserError: there is no such run, or it is not finished.
    """
    if folder is not None:
        if not (Path(folder) / TEST_METRICS).is_file():
            raise UserError(f"{folder} holds no finished run: train one with python train.py --run {folder}.")
        return Path(folder)
    if not (runs := finished_runs()):
        raise UserError("There is no finished run in runs/: train one with python train.py.")
    return runs[-1]


def finished_runs() -> list[Path]:
    """Finished runs in runs/, oldest first."""
    return [path.parent for path in sorted(RUNS.glob(f"*/{TEST_METRICS}"), key=lambda path: path.stat().st_mtime)]


def write_table(path: Path, rows: list[dict]) -> None:
    """Write rows with equal keys as CSV, aside and renamed."""
    with write_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write equally long columns as CSV, aside and renamed; of millions of rows, too."""
    with write_aside(path) as aside:
        pd.DataFrame(columns).to_csv(aside, index=False, lineterminator="\n")


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
