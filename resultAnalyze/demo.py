#!/usr/bin/env python3
"""A demo page: one HTML file in which anyone ticks movies and gets recommendations, without a server or a network.

    python resultAnalyze/demo.py
    python resultAnalyze/demo.py --run runs/RUN --output demo.html

The page holds the catalogue and, for each movie, the 100 strongest item-item weights: how much liking one movie speaks
for another. They are those of EASE (Models/EASE.py): the run's own if its preset has them, or else computed from its
training ratings. Movies with fewer than 5 ratings are left out, so that the page holds only sums over several people.
Movies are ranked by the sum of the ticked movies' weights, in integers: `recommended` below gives the page's list.
"""

import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from Models.checkpoint import SavedModel, load_model
from Models.EASE import item_weights
from Models.inputs import PositiveInt
from Models.layers import rating_weights
from utils import cli
from utils.cli import display_path
from utils.config import FileName, OptionalFolder, parse
from utils.files import ROOT, UserError, write_text
from utils.runs import finished_run

TEMPLATE = ROOT / "resultAnalyze" / "demo.html"
MAX_INT16 = 32_767
MIN_RATINGS = 5  # of a movie: with fewer, its weights would reveal what individual people rated
DAMPING = 10  # ratings at the global mean that are added to each movie's own


@dataclass(frozen=True)
class Settings:
    run: OptionalFolder = None
    """folder of a finished training (default: the newest in runs/)"""
    movies: PositiveInt = 10_000
    """maximum number of movies in the page, those with the most ratings"""
    neighbours: PositiveInt = 100
    """weights kept for each movie"""
    output: FileName = ROOT / "resultAnalyze" / "demo_page.html"
    """where the page goes"""


@dataclass(frozen=True)
class ItemWeights:
    """For each movie, the movies with the strongest weights, and these weights: uint16 and int16 [n, k]."""

    near: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, weights: Tensor, k: int) -> "ItemWeights":
        """The k strongest of each row of B, [n, n], as integers."""
        k = min(k, len(weights) - 1)
        without_own = weights.abs().fill_diagonal_(-1)
        near = without_own.topk(k, dim=1).indices.sort(dim=1).values
        strongest = weights.gather(1, near)
        scaled = strongest * (MAX_INT16 / float(strongest.abs().max().clamp(min=1e-12)))
        return cls(near.numpy().astype(np.uint16), scaled.round().numpy().astype(np.int16))

    def recommended(self, liked: list[int], n: int) -> list[int]:
        """The page's list: the n movies with the highest sums of the liked movies' weights; of equal ones the first."""
        score = np.zeros(len(self.near), np.int64)
        for movie in liked:
            score[self.near[movie]] += self.weights[movie]
        score[liked] = 0
        order = np.argsort(-score, kind="stable")
        return [int(movie) for movie in order[:n] if score[movie] > 0]


def main() -> None:
    settings = parse(Settings, __doc__)
    run = finished_run(settings.run)
    saved = load_model(run / "best.pt", torch.device("cpu"))
    content = page_content(saved, settings.movies, settings.neighbours)
    write_page(content, settings.output)
    words = f"{len(content['titles']):,} movies, {settings.output.stat().st_size / 1e6:.1f} MB"
    print(f"Wrote {words}, to {display_path(settings.output)}: open it in a browser.")


def write_page(content: dict[str, Any], output: Path) -> None:
    page = TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", as_script(content))
    write_text(output, page)


def page_content(saved: SavedModel, n_movies: int, neighbours: int) -> dict[str, Any]:
    """What the page holds, as plain values."""
    ids, known, scale = saved.ids, saved.ratings.training(), saved.model.stats.scale
    counts = torch.bincount(known.movie, minlength=len(ids.movie_ids))
    kept = counts.argsort(descending=True, stable=True)[: min(n_movies, int((counts >= MIN_RATINGS).sum()))]
    if not len(kept):
        raise UserError(
            f"No movie of {ids.dataset} has {MIN_RATINGS} training ratings: the page would reveal who rated what."
        )
    kept = kept.sort().values
    sums = torch.zeros(len(counts)).index_add(0, known.movie, scale.from_model(known.rating))
    mean = float(scale.from_model(known.rating).mean())
    stars = (sums + DAMPING * mean) / (counts + DAMPING) / scale.high
    weights = ItemWeights.of(all_weights(saved, kept), neighbours)
    of_movie = [ids.genres[i].split("|") if ids.genres[i] else [] for i in kept.tolist()]
    names = sorted({genre for genres in of_movie for genre in genres})
    return {
        "name": ids.dataset,
        "ids": [str(ids.movie_ids[i]) for i in kept.tolist()],
        "titles": [ids.titles[i] for i in kept.tolist()],
        "genreNames": names,
        "genres": [[names.index(genre) for genre in genres] for genres in of_movie],
        "counts": counts[kept].tolist(),
        "hasStars": not scale.is_constant and scale.low >= 0,
        "high": scale.high,
        "stars": (100 * stars[kept]).round().int().tolist(),
        "k": weights.near.shape[1],
        "near": encoded(weights.near),
        "weights": encoded(weights.weights),
        "footer": (
            f"Item-item weights of EASE from {len(known.movie):,} ratings, the {weights.near.shape[1]} strongest of "
            f"each movie with {MIN_RATINGS} ratings or more; stars are mean ratings. The page holds sums over "
            "people, no individual ratings; whether ratings could be reconstructed from them was not tested."
        ),
    }


def all_weights(saved: SavedModel, kept: Tensor) -> Tensor:
    """EASE's B for these movies, [n, n]: the run's own, or else from its training ratings."""
    solved = saved.inputs.item_weights
    if solved is not None and len(solved) == len(saved.ids.movie_ids):
        return solved[kept][:, kept].float()
    known = saved.ratings.training()
    column = torch.full((len(saved.ids.movie_ids),), -1)
    column[kept] = torch.arange(len(kept))
    rows = column[known.movie] >= 0
    pairs = known.users()[rows].numpy(), column[known.movie[rows]].numpy()
    x = sp.csr_matrix((rating_weights(known.rating[rows]).numpy(), pairs), (len(saved.ids.user_ids), len(kept)))
    return item_weights(x)


def encoded(values: np.ndarray) -> str:
    """Two-byte integers, little-endian, in base64."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def as_script(content: dict[str, Any]) -> str:
    """JSON that is safe in a script of a page, whatever the titles contain."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c")


if __name__ == "__main__":
    cli.run(main)
