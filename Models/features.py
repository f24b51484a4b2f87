"""Movie features in the form that models take, made in the same way for movies of the data set and for new ones.

| block | in `features` |
| --- | --- |
| title and other texts | the encoder's vector, centred and of length 1 |
| genres and other categories | multi-hot |
| numbers | standardised; 0 where unknown, and nowhere else |
| year | the decade, one-hot |
| popularity | the logarithm of the number of training ratings, predicted from the other blocks, standardised |

Names (directors, cast ...) are too many for dense columns: they are in `names`, sparse, weighted by inverse document
frequency and of length 1, and reach models that do not read `names` through the predicted popularity. A ridge
regression predicts it, for rated movies in a fit without them, so that it does not reveal how often a movie was rated.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import scipy.sparse as sp
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from Models.inputs import DECADES, POPULARITY, YEAR, FeatureBlock, decades
from utils.columns import Block

KNOWN_MEAN = 1e-6  # stands for a number at the mean, as 0 means unknown
RIDGE_PENALTY = 4.0  # on coefficients of blocks of length 1, by cross-validation on MovieLens 1M
FOLDS = 5


@dataclass(frozen=True)
class FeatureConfig:
    """Which features of movies models get, and in which form."""

    blocks: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="(default: all that there are)")
    ] = None
    """features of movies for the model: title, genres, year, columns of the metadata, and the popularity predicted
    from these"""
    shuffled: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="(default: none)")] = ()
    """blocks to permute among the movies, as a control"""
    unit_titles: bool = True
    """centre title vectors and scale them to unit length, instead of using the encoder's as they are"""


@dataclass(frozen=True)
class MovieRows:
    """The features of some movies.

    features: float32 [n, n_features]
    names: one matrix of words per block of names, sparse float32 [n, width]
    """

    features: Tensor
    names: tuple[Tensor, ...]


@dataclass(frozen=True)
class BlockScale:
    """How the values of a block are scaled, fitted to the catalogue.

    center, scale: mean and standard deviation of a number, mean of text vectors, or the inverse document frequencies
        of words (`scale`)
    """

    name: str
    kind: str
    width: int
    vocabulary: tuple[str, ...]
    center: Tensor
    scale: Tensor

    @classmethod
    def of(cls, block: Block, unit_titles: bool) -> "BlockScale":
        n, width = block.values.shape
        center, scale = np.zeros(width), np.ones(width)
        if block.kind == "text":
            known = block.values[block.values.any(1)]
            center = known.mean(0) * unit_titles if len(known) else center
        elif block.kind == "number":
            known = block.values[np.isfinite(block.values)].astype(np.float64)
            if len(known) and known.std() > 1e-6 * max(1.0, abs(known.mean())):  # else all are equal, up to rounding
                center[:], scale[:] = known.mean(), known.std()
            elif len(known):
                center[:] = known.mean()
        else:
            scale = np.log(n / np.maximum(np.asarray((block.values > 0).sum(0)).ravel(), 1))
        tensors = (torch.from_numpy(np.asarray(part, np.float32)) for part in (center, scale))
        return cls(block.name, block.kind, width, block.vocabulary, *tensors)

    def dense(self, block: Block, unit_titles: bool = True) -> np.ndarray:
        """The block's columns of `features`, float32 [n, width]."""
        if self.kind == "text":
            centred = (block.values - self.center.numpy()) * block.values.any(1, keepdims=True)
            return F.normalize(torch.from_numpy(centred)).numpy() if unit_titles else centred
        if self.kind == "number":
            scaled = (block.values - self.center.numpy()) / self.scale.numpy()
            return np.where(np.isfinite(scaled), np.where(scaled == 0, KNOWN_MEAN, scaled), 0).astype(np.float32)
        return block.values.toarray()

    def words(self, block: Block) -> sp.csr_matrix:
        """The block's words, weighted, each row of length 1, float32 [n, width]."""
        weighted = sp.csr_matrix(block.values @ sp.diags(self.scale.numpy()))
        length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
        return sp.csr_matrix(sp.diags(1 / np.maximum(length, 1e-9)) @ weighted, dtype=np.float32)


@dataclass(frozen=True)
class FeatureSpace:
    """How blocks of a features file become model inputs, kept so that new movies are treated alike.

    scales: of the blocks of the file that are used, in the order of the file
    has_year: whether decades are used
    popularity: of a ridge regression on all blocks: the coefficients [n_predictors], and the intercept, mean and
        standard deviation [3]; None where popularity is not used
    """

    scales: tuple[BlockScale, ...]
    has_year: bool
    unit_titles: bool
    popularity: tuple[Tensor, Tensor] | None = None

    @classmethod
    def fit(
        cls, blocks: Sequence[Block], year: np.ndarray, count: np.ndarray, config: FeatureConfig
    ) -> tuple["FeatureSpace", MovieRows]:
        """The space fitted to a catalogue, and the catalogue in it.

        Args:
            blocks: of all movies
            year: of release, 0 where unknown, [n_movies]
            count: training ratings of each movie, [n_movies]
        """
        wanted = config.blocks
        scales = tuple(
            BlockScale.of(block, config.unit_titles) for block in blocks if wanted is None or block.name in wanted
        )
        space = cls(scales, wanted is None or YEAR in wanted, config.unit_titles)
        predicted, predictors = None, space.predictors(blocks, year)
        if (wanted is None or POPULARITY in wanted) and (count > 0).sum() > FOLDS and predictors.shape[1]:
            coefficients, predicted = fit_popularity(predictors, count)
            space = cls(scales, space.has_year, space.unit_titles, coefficients)
        return space, space.rows(blocks, year, predicted)

    def dense_blocks(self) -> tuple[FeatureBlock, ...]:
        """The blocks of `features`, in their order."""
        found = [FeatureBlock(one.name, one.kind, one.width) for one in self.scales if one.kind != "names"]
        found += [FeatureBlock(YEAR, YEAR, len(DECADES))] * self.has_year
        return tuple(found + [FeatureBlock(POPULARITY, POPULARITY, 1)] * (self.popularity is not None))

    def name_blocks(self) -> tuple[FeatureBlock, ...]:
        """The blocks of `names`, in their order."""
        return tuple(FeatureBlock(one.name, one.kind, one.width) for one in self.scales if one.kind == "names")

    def rows(self, blocks: Sequence[Block], year: np.ndarray, predicted: np.ndarray | None = None) -> MovieRows:
        """Movies in this space.

        Args:
            predicted: the popularity of each, to use instead of the prediction fitted on all rated movies
        """
        by_name = {block.name: block for block in blocks}
        dense = [one.dense(by_name[one.name], self.unit_titles) for one in self.scales if one.kind != "names"]
        if self.has_year:
            dense.append(decades(torch.from_numpy(year.astype(np.float32))).numpy())
        if self.popularity is not None:
            dense.append((self.predicted(blocks, year) if predicted is None else predicted)[:, None])
        columns = np.hstack([np.zeros((len(year), 0)), *dense]).astype(np.float32)
        names = [one.words(by_name[one.name]) for one in self.scales if one.kind == "names"]
        return MovieRows(torch.from_numpy(columns), tuple(map(as_tensor, names)))

    def predictors(self, blocks: Sequence[Block], year: np.ndarray) -> sp.csr_matrix:
        """All blocks side by side, as the regression takes them, [n, n_predictors]."""
        by_name = {block.name: block for block in blocks}
        parts = [
            one.words(by_name[one.name]) if one.vocabulary else sp.csr_matrix(one.dense(by_name[one.name]))
            for one in self.scales
        ]
        if self.has_year:
            parts.append(sp.csr_matrix(decades(torch.from_numpy(year.astype(np.float32))).numpy()))
        return sp.csr_matrix(sp.hstack([sp.csr_matrix((len(year), 0)), *parts]), dtype=np.float64)

    def predicted(self, blocks: Sequence[Block], year: np.ndarray) -> np.ndarray:
        """The popularity of movies by the regression on all rated ones, standardised, [n]."""
        coefficients, (intercept, mean, std) = self.popularity[0].numpy(), self.popularity[1].tolist()
        return (self.predictors(blocks, year) @ coefficients + intercept - mean) / std

    def to_plain(self) -> dict[str, Any]:
        """As plain types and tensors."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "FeatureSpace":
        return cls(**values | {"scales": tuple(BlockScale(**one) for one in values["scales"])})


def fit_popularity(predictors: sp.csr_matrix, count: np.ndarray) -> tuple[tuple[Tensor, Tensor], np.ndarray]:
    """A ridge regression of log(1 + count), and its prediction for each movie, standardised, [n_movies].

    A rated movie's prediction is from a fit without its fold (cross-fitting), so that predictions for rated and for new
    movies are equally reliable.
    """
    from sklearn.linear_model import Ridge  # half a second, for which only training should wait
    from sklearn.model_selection import KFold, cross_val_predict

    rated = count > 0
    known, log_count = predictors[rated], np.log1p(count[rated])
    ridge = Ridge(RIDGE_PENALTY, solver="sparse_cg")
    predicted = np.empty(len(count))
    predicted[rated] = cross_val_predict(ridge, known, log_count, cv=KFold(FOLDS, shuffle=True, random_state=0))
    ridge.fit(known, log_count)
    predicted[~rated] = ridge.predict(predictors[~rated]) if (~rated).any() else []
    mean, std = predicted[rated].mean(), predicted[rated].std() or 1.0
    coefficients = torch.from_numpy(np.ascontiguousarray(ridge.coef_)), torch.tensor([ridge.intercept_, mean, std])
    return coefficients, (predicted - mean) / std


def as_tensor(matrix: sp.csr_matrix) -> Tensor:
    """A sparse SciPy matrix as a PyTorch tensor."""
    parts = matrix.tocoo()
    indices = torch.from_numpy(np.stack([parts.row, parts.col]).astype(np.int64))
    values, is_valid = torch.from_numpy(parts.data), {"is_coalesced": True, "check_invariants": False}
    return torch.sparse_coo_tensor(indices, values, parts.shape, **is_valid)
