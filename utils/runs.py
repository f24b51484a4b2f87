"""Run folders: one per training, finished once its test metrics or, for a final training, final.json are written."""

import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from utils.files import RUNS, UserError

# Written last: if one of them is there, the run is finished.
TEST_METRICS = "test_metrics.json"
FINAL = "final.json"  # of a training on all ratings, which has no test
GROUPS = "groups.csv"  # metrics by groups of users and movies, if resultAnalyze/groups.py has made them


def new_run(kind: str) -> Path:
    """A folder in runs/, named after the time and the kind of training."""
    return RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{kind}"


def create_run(folder: Path) -> Path:
    """Create the folder of a new run.

    Raises:
        UserError: it already exists.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"{folder} is already there: name another folder with --run.") from error
    return folder


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other training runs out of the run folder; the lock ends with this process, however it ends.

    Raises:
        UserError: another training holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"Another training is writing into {folder}: wait for it, or stop it first.") from error
    try:
        yield
    finally:
        lock.release()  # its file must stay: without it, two later trainings could each hold a lock


def discard(folder: Path) -> None:
    """Delete the folder of a training that was stopped.

    Raises:
        UserError: a training is writing into it.
    """
    with run_lock(folder):
        for path in folder.iterdir():
            if path.name != ".lock":
                path.unlink()
    shutil.rmtree(folder)


def is_finished(folder: Path) -> bool:
    return (folder / TEST_METRICS).is_file() or (folder / FINAL).is_file()


def finished_run(folder: Path | None, tested: bool = False, holding: str = "") -> Path:
    """The named run, or the newest one in runs/.

    Args:
        tested: accept only a run with a test, not one that was trained on all ratings
        holding: without a name, accept only a run with this file

    Raises:
        UserError: there is no such run, or it is not finished.
    """
    if folder is None:
        if not (found := [run for run in finished_runs(tested) if (run / holding).exists()]):
            lack = f" with {holding}" if holding else " with a test" if tested and finished_runs() else ""
            raise UserError(f"There is no finished run{lack} in runs/: train one with python train.py.")
        return found[-1]
    if tested and (Path(folder) / FINAL).is_file():
        raise UserError(f"{folder} was trained on all ratings and has no test: name the run that it was made from.")
    if (Path(folder) / "model.safetensors").is_file():
        raise UserError(f"{folder} is a shared model without the ratings that are needed here: name a run.")
    if not is_finished(Path(folder)):
        stopped = (Path(folder) / "config.json").is_file()
        remedy = f"resume it with python train.py --resume {folder}" if stopped else "train one with python train.py"
        raise UserError(f"{folder} holds no finished run: {remedy}.")
    return Path(folder)


def finished_runs(tested: bool = False) -> list[Path]:
    """Finished runs in runs/, oldest first."""
    marks = [*RUNS.glob(f"*/{TEST_METRICS}"), *([] if tested else RUNS.glob(f"*/{FINAL}"))]
    return [mark.parent for mark in sorted(marks, key=lambda mark: mark.stat().st_mtime)]


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint on the CPU, wherever it was trained; nothing in the file is executed.

    Raises:
        UserError: the file is missing, damaged, or holds more than plain types and tensors.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as parts:  # PyTorch writes checksums, but does not verify them
            if damaged := parts.testzip():
                raise ValueError(f"{damaged} is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no checkpoint {path}: train one with python train.py.") from error
    except PermissionError:
        raise
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is not a checkpoint that can be read safely ({reason}): train again with train.py."
        ) from error
