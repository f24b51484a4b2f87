"""What compared models are given and measured on: the same rows, the same masks, the same metric code."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Models.baselines import Fitted, Rows
from Models.checkpoint import read_checkpoint, rebuild
from Models.dataLoader import RatingsData
from Models.lists import UserLists
from Models.objectives import scorer
from Models.ranking import Ranking, Scorer, rank_all
from Models.splits import Split
from utils.files import ROOT, UserError, read_json, write_json
from utils.runs import TEST_METRICS


@dataclass(frozen=True)
class Task:
    """The ratings that models learn from, and what their test is.

    relevant: stars from which a test rating is one that a list should hold
    k: places of a list that count
    """

    data: RatingsData
    split: Split
    known: np.ndarray  # row numbers
    rows: Rows  # the same as columns, for the baselines
    relevant: float
    k: int
    chunk_users: int

    @classmethod
    def of(
        cls, data: RatingsData, split: Split, known: np.ndarray, relevant: float, k: int, chunk_users: int
    ) -> "Task":
        """`known`: the row numbers that baselines train on; nothing that they rate is a candidate in the test.

        Raises:
            UserError: no test rating is relevant.
        """
        if not (data.rating[split.test] >= relevant).any():
            raise UserError(f"No test rating has {relevant:g} stars or more: lower --relevant.")
        return cls(data, split, known, Rows.of(data, known), relevant, k, chunk_users)

    def seen(self) -> UserLists:
        """What must not be recommended: each user's movies of the training and validation rows."""
        return self.lists(np.concatenate([self.split.train, self.split.val]))

    def lists(self, rows: np.ndarray) -> UserLists:
        return UserLists.of(self.data.user[rows], self.data.movie[rows], self.rows.n_users)

    def cold(self) -> np.ndarray:
        """Movies that are tested and of which no model knows a rating, bool [n_movies]."""
        count = np.bincount(self.data.movie, minlength=self.rows.n_movies)
        tested = np.bincount(self.data.movie[self.split.test], minlength=self.rows.n_movies)
        return (tested > 0) & (tested == count)

    def stars(self, fitted: Fitted) -> np.ndarray:
        """Predicted stars of the test rows, clipped to the scale of the known ratings, [n_test]."""
        test, known = self.split.test, self.rows.rating
        stars = fitted.stars(self.data.user[test], self.data.movie[test], self.data.times()[test])
        return np.clip(stars, known.min(), known.max())

    @torch.inference_mode()
    def scores(self, fitted: Fitted) -> np.ndarray:
        """What the test rows are ordered by, [n_test]: predicted stars or, of models without, the ranking's scores."""
        if fitted.stars:
            return self.stars(fitted)
        user, movie = (torch.from_numpy(column[self.split.test]) for column in (self.data.user, self.data.movie))
        scores = torch.empty(len(user), dtype=torch.float64)
        for users in torch.unique(user).split(self.chunk_users):
            rows = torch.isin(user, users).nonzero().squeeze(1)
            scores[rows] = fitted.score(users)[torch.searchsorted(users, user[rows]), movie[rows]].double()
        return scores.numpy()

    def rank(self, score: Scorer, liked_in: np.ndarray | None = None, among: np.ndarray | None = None) -> Ranking:
        """Each user's relevant test movies among all that they have not seen.

        Args:
            liked_in: the movies of which relevant ones are looked for, bool [n_movies]; all without it
            among: the movies that are ranked, bool [n_movies]; all without it
        """
        test = self.split.test
        liked = test[self.data.rating[test] >= self.relevant]
        if liked_in is not None:
            liked = liked[liked_in[self.data.movie[liked]]]
        if among is not None:
            score = only(score, torch.from_numpy(among))
        return rank_all(score, self.seen(), self.lists(liked), top_n=self.k, chunk_users=self.chunk_users)


def only(score: Scorer, movies: torch.Tensor) -> Scorer:
    """The scores where only these movies, bool [n_movies], can be recommended."""
    return lambda users: score(users).double().masked_fill(~movies, -torch.inf)


def train_run(run: Path, flags: list[Any], task: Task) -> Fitted:
    """The model that `train.py` with these flags leaves in a run folder, trained now unless it is there already.

    A model that was trained to rank from histories sees in them the rows that the task's baselines know.

    Raises:
        UserError: the training failed.
    """
    if not (run / TEST_METRICS).is_file():
        stopped = (run / "last.pt").is_file()
        if run.is_dir() and not stopped:
            shutil.rmtree(run)  # stopped before its first epoch was done: nothing to go on from
        command = [sys.executable, ROOT / "train.py", *(["--resume", run] if stopped else [*flags, "--run", run])]
        if subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"Training {run.name} failed: see above; mend that and start again.")
    if read_json(run / "config.json")["ratings_sha256"] != task.data.fingerprint():
        raise UserError(f"{run} was trained on other ratings: name another folder with --output.")
    model, _ = rebuild(read_checkpoint(run / "best.pt"), torch.device("cpu"))
    if model.config.objective == "ranking":
        return Fitted(score=scorer(model, task.data, task.known))

    def stars(user: np.ndarray, movie: np.ndarray, time: np.ndarray) -> np.ndarray:
        batch = {"user": user, "movie": movie, "time": time}
        with torch.inference_mode():
            return model({name: torch.from_numpy(column) for name, column in batch.items()}).stars.numpy()

    return Fitted(stars, model.score)


def keep_protocol(folder: Path, protocol: dict[str, Any]) -> None:
    """Note under which protocol a folder's results are: those of two must not meet in one table.

    Raises:
        UserError: the folder has another's.
    """
    path = folder / "protocol.json"
    if path.is_file() and read_json(path) != protocol:
        raise UserError(f"{folder} holds results under another protocol: name another folder with --output.")
    write_json(path, protocol)
