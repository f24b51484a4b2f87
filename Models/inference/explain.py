"""Why movies are recommended: the user's ratings that raise their scores most, and what these movies have in common.

A rating's effect is how much the score falls when that rating is taken out of the history: exact, by the model's own
score, and the same for every model. (The effects of several ratings do not add up to that of all.)
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from Models.checkpoint import SavedModel
from Models.Dataset import Model
from Models.features import FeatureSpace
from Models.sequences import PaddedHistory
from utils.lists import Reason, Recommendations

CHUNK_HISTORIES = 256  # scored together: bounds memory
N_REASONS = 3
ROUNDING = 1e-5  # falls up to this count as none
N_NAMES = 3  # per reason, at most
RARE = math.log(1 / 0.05)  # inverse document frequency above which a name is informative


def explained(
    saved: SavedModel, found: Iterable[Recommendations], histories: Iterable[PaddedHistory]
) -> Iterator[Recommendations]:
    """The recommendations with reasons, made from these histories, each [1, L] and on the model's device."""
    index = {movie: k for k, movie in enumerate(saved.ids.movie_ids)}
    for one, history in zip(found, histories, strict=True):
        of_each = reasons(saved, history, [index[movie.id] for movie in one.movies])
        movies = [dataclasses.replace(movie, reasons=own) for movie, own in zip(one.movies, of_each, strict=True)]
        yield dataclasses.replace(one, movies=movies)


def reasons(saved: SavedModel, history: PaddedHistory, movies: list[int], n: int = N_REASONS) -> list[list[Reason]]:
    """For each of these movies, up to n ratings of the history that raise its score most, most important first.

    Args:
        history: of one user, [1, L]

    Returns:
        one list per movie; empty if no rating raises its score
    """
    falls, scale = falls_of(saved.model, history, torch.tensor(movies)), saved.model.stats.scale
    unit = scale.unit if saved.model.config.task == "rating" else 1.0
    found = []
    for movie, fall in zip(movies, falls.T, strict=True):
        values, ratings = fall.topk(min(n, len(fall)))
        of_movie = []
        for value, k in zip(values.tolist(), ratings.tolist(), strict=True):
            if value > ROUNDING:
                rated = int(history.movie[0, k])
                rating = float(scale.from_model(history.rating[0, k]))
                ids = saved.ids.movie_ids[rated], saved.ids.titles[rated]
                of_movie.append(Reason(*ids, rating, value * unit, in_common(saved, movie, rated)))
        found.append(of_movie)
    return found


@torch.inference_mode()
def falls_of(model: Model, history: PaddedHistory, movies: Tensor) -> Tensor:
    """How much the scores of these n movies fall without each rating of one user's history, [n_ratings, n]."""
    movies, n = movies.to(history.movie.device), int(history.mask.sum())
    base, others = model.score(history)[0, movies], history.without_each()
    chunks = torch.arange(n, device=history.movie.device).split(CHUNK_HISTORIES) if n else ()
    without = [model.score(others.rows(rows))[:, movies] for rows in chunks]
    return (base - torch.cat(without) if n else base.new_zeros(0, len(movies))).cpu()


def in_common(saved: SavedModel, first: int, second: int) -> list[str]:
    """What two movies have in common among what the model knows, in words: "Animation", "director John Lasseter".

    Of names, the rarest few, and none that 5 % of the movies or more have, such as English, the language of most.
    """
    found = []
    if any(block.name == "genres" for block in saved.model.stats.blocks):
        genres = [set(saved.ids.genres[movie].split("|")) - {""} for movie in (first, second)]
        found += sorted(genres[0] & genres[1])
    if saved.inputs.space is None:
        return found
    genres = {genre.casefold() for genre in found}
    scales = [scale for scale in FeatureSpace.from_plain(saved.inputs.space).scales if scale.kind == "names"]
    shared = []
    for scale, matrix in zip(scales, saved.inputs.names, strict=True):
        words = [set(matrix[movie].coalesce().indices()[0].tolist()) for movie in (first, second)]
        shared += [(float(scale.scale[k]), scale.name, scale.vocabulary[k]) for k in words[0] & words[1]]
    rare = [(-rarity, block, name) for rarity, block, name in shared if rarity > RARE and name.casefold() not in genres]
    return found + [f"{block} {name}" for _, block, name in sorted(rare)[:N_NAMES]]
