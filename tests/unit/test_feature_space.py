"""Features as models take them: each kind of block, blocks left out or shuffled, predicted popularity, new movies."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from Models.features import FeatureConfig, FeatureSpace, fit_popularity
from Models.ratings_data import model_inputs
from utils.columns import Block, multi_hot
from utils.files import UserError

RANDOM = np.random.default_rng(0)
N = 40
TITLES = RANDOM.normal(size=(N, 6)).astype(np.float32)
GENRES = [tuple(np.array(["a", "b", "c"])[RANDOM.random(3) < 0.5]) for _ in range(N)]
CAST = [tuple(np.array([f"n{k}" for k in range(9)])[RANDOM.random(9) < 0.3]) for _ in range(N)]
WORDS = tuple(f"n{k}" for k in range(9))
BLOCKS = (
    Block("title", "text", TITLES),
    Block("genres", "category", multi_hot(GENRES, "abc"), ("a", "b", "c")),
    Block("cast", "names", multi_hot(CAST, WORDS), WORDS),
    Block("runtime", "number", np.array([np.nan, *range(90, 90 + N - 1)], np.float32)[:, None]),
)
YEAR = np.array([0, *RANDOM.integers(1930, 2000, N - 1)], np.float32)
COUNT = np.array([*[0] * 8, *RANDOM.integers(1, 500, N - 8)])


def fitted(**config) -> tuple[FeatureSpace, torch.Tensor, dict[str, torch.Tensor]]:
    """The space, its rows and the columns of `features` by block."""
    space, rows = FeatureSpace.fit(BLOCKS, YEAR, COUNT, FeatureConfig(**config))
    blocks = space.dense_blocks()
    parts = rows.features.split([block.width for block in blocks], 1)
    return space, rows, dict(zip((block.name for block in blocks), parts, strict=True))


def test_each_kind_of_block_by_hand():
    _, rows, parts = fitted()
    assert list(parts) == ["title", "genres", "runtime", "year", "popularity"]
    centred = TITLES - TITLES.mean(0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    torch.testing.assert_close(parts["title"], torch.from_numpy(expected))
    assert parts["genres"].tolist() == [[float(word in words) for word in "abc"] for words in GENRES]
    runtime = parts["runtime"].squeeze(1)
    assert (
        runtime[0] == 0
        and abs(float(runtime[1:].mean())) < 1e-6
        and float(runtime[1:].std(correction=0)) == pytest.approx(1)
    )
    assert parts["year"].sum(1).tolist() == [0.0] + [1.0] * (N - 1)
    rare = [np.log(N / sum(word in words for words in CAST)) for word in WORDS]
    (cast,) = rows.names
    for row, words in zip(cast.to_dense(), CAST, strict=True):
        weighted = np.array([weight * (word in words) for word, weight in zip(WORDS, rare, strict=True)])
        torch.testing.assert_close(row, torch.tensor(weighted / (np.linalg.norm(weighted) or 1), dtype=torch.float32))


def test_raw_titles_stay_as_the_encoder_gave_them():
    _, _, parts = fitted(unit_titles=False)
    torch.testing.assert_close(parts["title"], torch.from_numpy(TITLES))


@pytest.mark.parametrize("name", ["title", "genres", "cast", "runtime", "year"])
def test_a_block_that_is_not_wanted_changes_nothing(name):
    """Nothing of it is left, not even in the popularity."""
    others = tuple(one for one in ("title", "genres", "cast", "runtime", "year", "popularity") if one != name)
    changed, year = [], YEAR if name != "year" else YEAR[::-1].copy()
    for block in BLOCKS:
        values = block.values[::-1] if block.name == name else block.values
        changed.append(dataclasses.replace(block, values=values))
    for config, same in ((FeatureConfig(blocks=others), True), (FeatureConfig(), False)):
        one, other = (FeatureSpace.fit(*of, COUNT, config)[1] for of in ((BLOCKS, YEAR), (changed, year)))
        assert torch.equal(one.features, other.features) == same
        assert all(torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(one.names, other.names, strict=True)) or (
            name == "cast"
        )


def test_the_popularity_of_a_rated_movie_is_said_without_its_own_count():
    """Changing its count changes the popularity of movies in other folds, but not its own."""
    space, _, _ = fitted()
    predictors = space.predictors(BLOCKS, YEAR)
    other = COUNT.copy()
    other[20] = 100_000
    found = []
    for count in (COUNT, other):
        (_, (_, mean, std)), promised = fit_popularity(predictors, count)
        found.append(promised * float(std) + float(mean))
    assert found[0][20] == pytest.approx(found[1][20], abs=1e-6)
    assert abs(found[0] - found[1]).max() > 0.1


def test_popularity_is_learned_from_what_movies_are():
    """Movies with one of three words have ten times the ratings, so more are predicted for a new one with that word."""
    random = np.random.default_rng(1)
    words = sp.csr_matrix(np.eye(3)[random.integers(0, 3, 300)])
    liked = words.toarray()[:, 0] > 0
    count = np.where(liked, 200, 20) + random.integers(0, 10, 300)
    count[:30] = 0
    _, promised = fit_popularity(words, count)
    assert promised[:30][liked[:30]].min() > promised[:30][~liked[:30]].max() + 1
    rated = promised[30:]
    assert abs(rated.mean()) < 1e-9 and rated.std() == pytest.approx(1)


def test_new_movies_become_what_they_would_be_in_the_catalogue():
    space, rows, _ = fitted()
    some = [3, 0, 11]
    blocks = [dataclasses.replace(block, values=block.values[some]) for block in reversed(BLOCKS)]
    again = FeatureSpace.from_plain(space.to_plain()).rows(blocks, YEAR[some])
    torch.testing.assert_close(again.features[:, :-1], rows.features[some, :-1])
    torch.testing.assert_close(again.features[:2, -1], rows.features[some, -1][:2])  # 11 is rated: cross-fitted there
    torch.testing.assert_close(again.names[0].to_dense(), rows.names[0].to_dense()[some])


def test_unknown_texts_are_no_vector_of_their_own():
    texts = TITLES.copy()
    texts[:5] = 0
    blocks = (Block("plot", "text", texts),)
    _, rows = FeatureSpace.fit(blocks, YEAR, COUNT, FeatureConfig(blocks=("plot",)))
    assert not rows.features[:5].any()
    torch.testing.assert_close(rows.features[5:].norm(dim=1), torch.ones(N - 5))


def test_shuffled_blocks_are_those_of_other_movies(data):
    rows = np.arange(len(data.user))
    torch.manual_seed(0)
    own, shuffled = (
        model_inputs(data, rows, FeatureConfig(blocks=("title", "genres"), shuffled=names))[1].features
        for names in ((), ("title",))
    )
    ordered, others = (part[:, :8][part[:, 0].argsort()] for part in (own, shuffled))
    torch.testing.assert_close(ordered, others)
    assert not torch.equal(shuffled[:, :8], own[:, :8]) and torch.equal(shuffled[:, 8:], own[:, 8:])


@pytest.mark.parametrize("config", [{"blocks": ("title", "director")}])
def test_a_block_that_is_not_there_is_named(data, config):
    with pytest.raises(UserError, match="no block 'director': choose from title, genres, year, popularity"):
        model_inputs(data, np.arange(len(data.user)), FeatureConfig(**config))


def test_without_anything_known_there_are_no_features(data):
    for blocks in ((), ("popularity",)):  # which is predicted from other blocks
        stats, inputs = model_inputs(data, np.arange(len(data.user)), FeatureConfig(blocks=blocks))
        assert inputs.features.shape == (27, 0) and stats.blocks == stats.names == ()


@pytest.mark.parametrize("config", [{"shuffled": ("popularity",)}, {"blocks": ("title",), "shuffled": ("genres",)}])
def test_what_can_not_be_shuffled_is_said(data, config):
    with pytest.raises(UserError, match="is not among the blocks, or is made from the others"):
        model_inputs(data, np.arange(len(data.user)), FeatureConfig(**config))


def test_a_known_number_is_never_what_stands_for_an_unknown_one():
    """Not even where it equals the mean."""
    pages = np.array([[90], [100], [110], [100], [np.nan]], np.float32)
    _, rows = FeatureSpace.fit((Block("pages", "number", pages),), np.zeros(5), np.ones(5), FeatureConfig(("pages",)))
    assert (rows.features[:, 0] != 0).tolist() == [True] * 4 + [False]
    assert rows.features[:4, 0].tolist() == pytest.approx([-1.41421, 0, 1.41421, 0], abs=1e-5)


def test_a_number_that_is_always_the_same_says_nothing():
    blocks = (Block("price", "number", np.full((3883, 1), 9.99, np.float32)),)
    space, rows = FeatureSpace.fit(blocks, np.zeros(3883, np.float32), np.ones(3883), FeatureConfig(blocks=("price",)))
    other = space.rows((Block("price", "number", np.array([[12.99]], np.float32)),), np.zeros(1, np.float32))
    assert rows.features.abs().max() < 1e-5 and float(other.features[0, 0]) == pytest.approx(3, abs=1e-5)
