"""Notes printed with lists, on the error stream: how to read the lists and their model."""

import shlex
from pathlib import Path

from torch import Tensor

from Models.checkpoint import SavedModel
from Models.inference.request import Request
from utils import distributed
from utils.cli import display_path
from utils.lists import Recommendations, Shown
from utils.splits import TRAIN


def note_on_lists(request: Request, saved: SavedModel, shown: Shown) -> None:
    """Say what the model behind the written lists is not made for, and what the lists lack."""
    last = shown.last
    if request.explain and not request.for_several and last.movies and not any(movie.reasons for movie in last.movies):
        distributed.say(
            "No rating of the user raises these scores: the model reads no ratings, or knows too few of them."
        )
    if saved.model.config.task != "ranking":
        distributed.say(
            "The model learned to predict ratings, not which movies are chosen; for movies that users would choose: "
            "python train.py --preset autoencoder."
        )
    if shown.n_short:
        of_users = f"For {shown.n_short:,} of {shown.n:,} users fewer" if request.for_several else "Fewer"
        distributed.say(f"{of_users} than {request.top_n} movies are left.")


def note_on_later(request: Request, time: int, latest: Tensor) -> None:
    """Say how many of the users, whose latest ratings are at these times, rated after --at."""
    if request.at is not None and (n := int((latest > time).sum())):
        of_users = f"{n:,} of {len(latest):,} users have" if len(latest) > 1 else "The user has"
        distributed.say(f"{of_users} ratings after --at: lists are as of the latest one.")


def note_on_popular(found: Recommendations, popular: list) -> None:
    """Say how the recommendations compare with the most popular movies."""
    n, n_common = len(found.movies), len({movie.id for movie in found.movies} & set(popular))
    distributed.say(f"Overlap with the {len(popular)} most popular movies that are left: {n_common} of {n}.")


def note_on_training(saved: SavedModel, run: Path) -> None:
    """Say if the model was trained on a part of the ratings only."""
    n, n_trained = len(saved.ratings.part), int((saved.ratings.part == TRAIN).sum())
    if n_trained < n:
        distributed.say(
            f"The model was trained on {n_trained:,} of {n:,} ratings; for recommending, "
            f"python train.py --final {shlex.quote(display_path(run))} trains it on all."
        )
