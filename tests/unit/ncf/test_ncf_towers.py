"""The NCF's towers and features: what is off changes nothing."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from helpers import batch_of, random_model
from ncf_by_hand import TOWERS, as_new, made, predicted

from Models.features import FeatureConfig
from Models.ratings_data import RatingsData
from Models.Recommender import NCFConfig, Recommender
from Models.sequences import History, offsets
from Models.training.command_line import parse_training


def test_without_towers_and_mlp_every_prediction_is_the_mean(spread, split, train):
    model = made(spread, train, towers=(), hidden_dim=0)
    found = predicted(model, spread, split.test, train)
    assert torch.equal(found, model.mean.detach().expand_as(found))


def test_the_clock_is_left_out_where_the_data_has_no_times(spread, split):
    """Otherwise missing times would count as 1 January 1970."""
    data = dataclasses.replace(spread, time=None)
    model = made(data, split.train)
    before = predicted(model, data, split.test, split.train)
    with torch.no_grad():
        model.context_weights[3:] += 1
    assert torch.equal(predicted(model, data, split.test, split.train), before)


@torch.inference_mode()
def outputs(model: Recommender, data: RatingsData, known: History, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Predictions in training and in evaluation mode, and scores of users of the data and of new ones."""
    history = known.pad(torch.arange(0, 30, 7))
    scores = [model.score(one).flatten() for one in (history, as_new(history))]
    return torch.cat([model.train()(batch).prediction, model.eval().predict(batch, known), *scores])


def with_other(tower: str, data: RatingsData, rows: np.ndarray, towers: tuple) -> torch.Tensor:
    """The outputs of a model in which only the inputs of this tower differ from the data's."""
    known, batch, made_of = data.history(rows), batch_of(data, rows), data
    if tower == "features":
        vectors = np.random.default_rng(1).normal(size=data.features.vectors.shape).astype(np.float32)
        made_of = dataclasses.replace(data, features=dataclasses.replace(data.features, vectors=vectors))
    if tower == "demographics":
        made_of = dataclasses.replace(data, user_features=1 - data.user_features)
    model = made(made_of, rows, towers=towers)
    with torch.no_grad():
        if tower == "ids":
            for one in (model.users.mean, model.users.log_std, model.movies.mean, model.movie_bias):
                one += torch.randn_like(one)
        if tower == "history":  # only the implicit factors: the rated movies also affect the new users' p
            model.history += torch.randn_like(model.history)
        if tower == "audience":  # other movies' raters
            n = model.training_n_of_movie.flip(0)
            model.training_n_of_movie, model.training_offset_of_movie = n, offsets(n)
        if tower == "sessions":
            for one in model.sessions.biases:
                one.mean += torch.randn_like(one.mean)
        if tower == "clock":
            known = dataclasses.replace(known, time=known.time + 5_000 * torch.arange(len(known.time)))
            model.training_time = known.time
            batch["time"] = batch["time"] + 1_234_567
    return outputs(model, made_of, known, batch)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_that_is_off_changes_nothing(spread, train, tower):
    """Changing its inputs changes the model's outputs only if it is on."""
    off = tuple(one for one in TOWERS if one != tower and (tower, one) != ("clock", "sessions"))  # both read times
    for towers, same in ((off, True), (TOWERS, False), ((tower,), False)):
        rest = outputs(made(spread, train, towers=towers), spread, spread.history(train), batch_of(spread, train))
        assert torch.allclose(with_other(tower, spread, train, towers), rest, atol=1e-3) == same


@torch.inference_mode()
def test_without_the_history_tower_the_rated_movies_do_not_matter_to_users_of_the_data(spread, split, train):
    batch, known = batch_of(spread, split.test), spread.history(train)
    other = dataclasses.replace(known, movie=(known.movie + 1) % 27)
    for towers, same in ((TOWERS, False), (tuple(one for one in TOWERS if one != "history"), True)):
        model = made(spread, train, towers=towers)
        assert torch.equal(model.predict(batch, known), model.predict(batch, other)) == same


@torch.inference_mode()
def test_years_are_in_the_features_and_in_the_clock(spread, train):
    """In the features as decades, in the clock as the movies' age; with both off, they do not matter."""
    older = dataclasses.replace(spread, movies=spread.movies.assign(year=spread.movies["year"] - 30))
    batch, known = batch_of(spread, train), spread.history(train)
    neither = ("ids", "history", "audience", "demographics")
    for towers, same in ((neither, True), ((*neither, "features"), False), ((*neither, "clock"), False)):
        found = [outputs(made(one, train, towers=towers), one, known, batch) for one in (spread, older)]
        assert torch.allclose(*found, atol=1e-3) == same


@pytest.mark.parametrize(
    ("config", "columns"),
    [(FeatureConfig(blocks=("genres", "year")), slice(8)), (FeatureConfig(blocks=("title", "year")), slice(8, None))],
    ids=["titles", "genres"],
)
def test_features_that_are_off_change_nothing(spread, split, train, config, columns):
    vectors = spread.features.vectors.copy()
    vectors[:, columns] = np.random.default_rng(1).normal(size=vectors[:, columns].shape)
    other = dataclasses.replace(spread, features=dataclasses.replace(spread.features, vectors=vectors))
    for features, same in ((config, True), (FeatureConfig(), False)):
        found = [
            predicted(random_model(one, train, NCFConfig(embedding_dim=4), **vars(features)), one, split.test, train)
            for one in (spread, other)
        ]
        assert torch.allclose(*found, atol=1e-3) == same


def test_towers_are_chosen_by_the_command_line(capsys):
    found = parse_training("", ["--preset", "ncf", "--towers", "features", "clock"])
    assert found.model == NCFConfig(towers=("features", "clock"))
    for words in (["ids", "mood"], ["titles"]):
        with pytest.raises(SystemExit) as caught:
            parse_training("", ["--towers", *words])
        assert caught.value.code == 2
        message = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
        assert words[-1] in message and "demographics" in message
