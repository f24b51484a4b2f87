"""Training runs of a comparison or an ablation: kept in its folder, and reused if settings and data are the same.

Each runs in its own process, several at once if wanted, so that the peak memory of each is known.
"""

import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import train
from Models.checkpoint import load_model
from Models.configs import DataConfig, TrainConfig, saved_config
from Models.Dataset import FittedModel
from Models.evaluation.fitted import as_fitted
from Models.evaluation.rankings import RankingEvaluator
from Models.training.run_folder import data_record
from utils import runs
from utils.files import UserError, read_json, write_json

CPU = torch.device("cpu")
IMPORTED_BY_TRAININGS = ("torch._dynamo", "sklearn.linear_model")  # which take two seconds, once an optimizer is built
Result = TypeVar("Result")


def in_processes(task: Callable[..., Result], calls: Sequence[tuple], jobs: int) -> Iterator[Result]:
    """Yield the task's result for each call as soon as it is there, with `jobs` calls running at once.

    Each call has its own process, forked, on systems that can, from one that has already loaded the libraries; the
    processes share the cores.

    Raises:
        UserError: a process was killed, as systems do when memory runs out.
    """
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if sys.platform != "win32":
        context.set_forkserver_preload([task.__module__, *IMPORTED_BY_TRAININGS])
    threads = max(1, torch.get_num_threads() // jobs)  # get_num_threads follows OMP_NUM_THREADS

    def in_one(call: tuple) -> Result:
        with ProcessPoolExecutor(1, context, take_cores, (threads,)) as process:
            return process.submit(task, *call).result()

    fault: BaseException | None = None
    waiting = ThreadPoolExecutor(jobs)
    try:
        futures = [waiting.submit(in_one, call) for call in calls]
        for done in as_completed(futures):
            if not done.cancelled() and (error := done.exception()):
                fault = fault or error
                for one in futures:
                    one.cancel()  # running calls finish, so that their work is not lost
            elif not done.cancelled():
                yield done.result()
    finally:
        waiting.shutdown(cancel_futures=True)
    if isinstance(fault, BrokenProcessPool):
        raise UserError("A process was killed, perhaps for lack of memory: repeat it with fewer --jobs.") from fault
    if fault:
        raise fault


def take_cores(n: int) -> None:
    """Use n threads in this process."""
    os.environ["OMP_NUM_THREADS"] = str(n)  # for libraries that are loaded later
    torch.set_num_threads(n)


def peak_memory() -> float | None:
    """The peak memory of this process in GiB, as Linux reports it; None elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    kilobytes = next(
        line.split()[1] for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    return round(int(kilobytes) / 2**20, 2)


def is_run_of(run: Path, config: TrainConfig, data: dict[str, Any]) -> bool:
    """Whether a run folder holds a training with exactly this configuration, on the data of this `data_record`."""
    try:
        saved, record = saved_config(run), read_json(run / "config.json")
    except UserError:  # damaged, or from another version of this code
        return False
    return saved.training() == config.training() and all(record[name] == value for name, value in data.items())


def trained(run: Path, config: TrainConfig, evaluator: RankingEvaluator, device: torch.device) -> FittedModel:
    """The model of a run folder, trained now unless it is there already; an interrupted training is resumed.

    It trains on the device and is evaluated on the CPU. In the test, a model that predicts ratings is given the
    training rows, and one that ranks also the validation rows.

    Raises:
        UserError: the folder holds another training.
    """
    if run.is_dir() and not runs.is_finished(run) and not (run / "last.pt").is_file():
        runs.discard(run)  # stopped before its first epoch was done: nothing to resume
    if run.is_dir() and not is_run_of(run, config, data_record(evaluator.data)):
        raise UserError(
            f"{run} was trained on other ratings or with other settings: name another folder with --output."
        )
    if not runs.is_finished(run):
        place = {"resume": run} if run.is_dir() else {"run": run}
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, **place))
        with Path(os.devnull).open("w", encoding="utf-8", errors="replace") as silence, redirect_stdout(silence):
            train.train(config, device)
    model = load_model(run / "best.pt", CPU).model
    if model.config.task == "ranking":
        return evaluator.fitted_for_test(model)
    return as_fitted(model, evaluator.data, evaluator.split.train)


def scores_of_test_rows(fitted: FittedModel, predictions: np.ndarray | None, evaluator: RankingEvaluator) -> np.ndarray:
    """The scores that order the test rows, [n_test]: predictions or, for models without them, the ranking's scores."""
    if predictions is not None:
        return predictions
    test, data = evaluator.split.test, evaluator.data
    user, movie = (torch.from_numpy(column[test]) for column in (data.user, data.movie))
    scores = torch.empty(len(user), dtype=torch.float64)
    for users in torch.unique(user).split(evaluator.chunk_users):
        rows = torch.isin(user, users).nonzero().squeeze(1)
        scores[rows] = fitted.score(users)[torch.searchsorted(users, user[rows]), movie[rows]].double()
    return scores.numpy()


def protocol_of(evaluator: RankingEvaluator, config: DataConfig) -> dict[str, Any]:
    """What results in one folder share: the data, its scale, features and split, and how rankings are measured."""
    data, info = evaluator.data, evaluator.data.features.info
    return {
        "data": data.name,
        "ratings_sha256": data.fingerprint(),
        "scale": list(config.scale) if config.scale else None,
        "features_sha256": info.features_sha256,
        "blocks_sha256": info.blocks_sha256,
        "split": evaluator.split.protocol,
        "relevance_threshold": evaluator.relevance_threshold,
        "k": evaluator.k,
    }


def check_protocol(folder: Path, protocol: dict[str, Any]) -> None:
    """Record the protocol of this folder; refuse to mix results of different protocols.

    Raises:
        UserError: the folder has another protocol.
    """
    path = folder / "protocol.json"
    before = read_json(path) if path.is_file() else protocol
    if before != protocol:
        raise UserError(f"{folder} holds results under another protocol: name another folder with --output.")
    write_json(path, protocol)
