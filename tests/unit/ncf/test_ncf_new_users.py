"""New users of the NCF: they minimise the training objective over their own ratings."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers import batch_of, one_history
from ncf_by_hand import ByHand, as_new, made, of_user, trained

from Models.features import FeatureConfig
from Models.inference.recommend import scores_of_known
from Models.ratings_data import RatingsData, model_inputs
from Models.Recommender import NCFConfig, Recommender
from Models.sequences import NEW_USER


def objective(model: Recommender, hand: ByHand, data: RatingsData, own: np.ndarray):
    """The training objective over p and b of a user with these rows and without demographics, from its parts."""
    movies, times = data.movie[own].tolist(), data.time[own].tolist()
    x = [hand.x(NEW_USER, i, t, times) for i, t in zip(movies, times, strict=True)]
    others = [[j for j in movies if j != i] for i in movies]
    nothing = np.zeros(4)
    left = [hand.of_parts(nothing, 0.0, *one) for one in zip(x, movies, others, strict=True)]
    tastes = [hand.z_of_user(nothing, *one) for one in zip(x, others, strict=True)]
    rest, taste = torch.tensor(data.rating[own] - np.array(left)), torch.tensor(np.array(tastes))
    q = torch.tensor(np.array([hand.z_of_movie(i) for i in movies]))
    variance = torch.tensor(np.exp(2 * hand.value["movies.log_std"][movies]))
    noise, prior = math.exp(hand.value["log_noise"]), model.users.prior_variance().detach().double()
    prior_of_bias = prior[-1] + sum(one.prior_variance().detach().double() for one in model.sessions.biases)

    def loss(p: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        expected = (rest - bias - q @ p).square() + ((taste + p).square() * variance).sum(1)
        return 0.5 * (expected.sum() / noise + (p.square() / prior[:-1]).sum() + bias.square() / prior_of_bias).sum()

    return loss


def minimum(loss) -> tuple[torch.Tensor, torch.Tensor]:
    """p and b by numerical search, without the closed form."""
    p, bias = torch.zeros(4).double().requires_grad_(), torch.zeros(()).double().requires_grad_()
    optimizer = torch.optim.LBFGS([p, bias], max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(p, bias)
        value.backward()
        return value

    optimizer.step(step)
    return p.detach(), bias.detach()


@pytest.mark.parametrize("movies", ["certain", "uncertain"])
def test_a_new_user_is_the_minimum_of_the_training_objective(spread, train, movies):
    """Over their p and bias, all else fixed, in one session; with certain and with uncertain movie vectors."""
    model = made(spread, train, hidden_dim=0)
    if movies == "certain":
        torch.nn.init.constant_(model.movies.log_std, -12.0)
    for user in (0, 7, 29):
        own = of_user(spread, train, user)
        p, bias = minimum(objective(model, ByHand(model, spread, train), spread, own))
        history = as_new(spread.history(train).pad(torch.tensor([user])))
        with torch.inference_mode():
            found = model.user_tower(history.user, history.flat(), model.item_tower())
        torch.testing.assert_close(found["p"][0].double(), p, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found["bias"][0].double(), bias, atol=1e-3, rtol=1e-3)
        assert p.abs().max() > 0.1 and abs(bias) > 0.02


@pytest.mark.parametrize("hidden_dim", [5, 0])
def test_scores_of_a_new_user_equal_the_formula_with_their_p_and_bias(spread, train, hidden_dim):
    """They have no demographics and are scored at the time of their last rating."""
    model = made(spread, train, hidden_dim=hidden_dim)
    hand, own = ByHand(model, spread, train), of_user(spread, train, 7)
    history = as_new(spread.history(train).pad(torch.tensor([7])))
    with torch.inference_mode():
        found, scores = model.user_tower(history.user, history.flat(), model.item_tower()), model.score(history)[0]
    p, bias = found["p"][0].double().numpy(), float(found["bias"])
    rated, times = spread.movie[own].tolist(), spread.time[own].tolist()
    x = [hand.x(NEW_USER, movie, times[-1], times) for movie in range(27)]
    expected = [hand.of_parts(p, bias, x[movie], movie, rated) for movie in range(27)]
    torch.testing.assert_close(scores.double(), torch.tensor(expected), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_new_user_without_ratings_has_no_p_and_no_bias(spread, train):
    """They are scored at the time of the newest training rating."""
    model = made(spread, train)
    hand = ByHand(model, spread, train)
    history = one_history()
    found = model.user_tower(history.user, history.flat(), model.item_tower())
    assert not found["p"].any() and not found["bias"].any() and not found["taste"].any()
    newest = int(spread.time[train].max())
    expected = [hand.of_parts(np.zeros(4), 0.0, hand.x(NEW_USER, movie, newest, []), movie, []) for movie in range(27)]
    torch.testing.assert_close(model.score(history)[0].double(), torch.tensor(expected), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_more_ratings_of_like_movies_move_predictions_towards_them(spread, train):
    """More and more of ten movies with one vector are rated 5, and as many with the opposite vector are rated 1."""
    model = made(spread, train, towers=("ids",), hidden_dim=0)
    model.movies.mean[:10], model.movies.mean[10:20] = 0.5, -0.5
    model.movies.log_std.fill_(-3.0)
    model.movie_bias[:20] = 0
    model.mean.fill_(3.0)
    liked, disliked = [], []
    for n in range(9):
        pairs = [(movie, rating) for k in range(n) for movie, rating in ((k, 5.0), (10 + k, 1.0))]
        rated, ratings = [movie for movie, _ in pairs], [rating for _, rating in pairs]
        scores = model.score(one_history(*rated, rating=ratings))[0]
        liked.append(float(scores[9]))
        disliked.append(float(scores[19]))
    assert liked == sorted(liked) and disliked == sorted(disliked, reverse=True)
    assert liked[0] == disliked[0] == 3.0 and 4.5 < liked[-1] < 5 and 1 < disliked[-1] < 1.5


@torch.inference_mode()
def test_the_order_of_ratings_of_one_time_does_not_matter(spread, train):
    model, movies, ratings = made(spread, train), [3, 14, 8, 25, 20], [5.0, 1.0, 4.0, 2.0, 3.0]
    times = [990_000_000] * 5
    first = model.score(one_history(*movies, rating=ratings, time=times))
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        changed = one_history(*(movies[k] for k in order), rating=[ratings[k] for k in order], time=times)
        torch.testing.assert_close(model.score(changed), first, atol=1e-4, rtol=1e-4)
    swapped = model.score(one_history(*movies, rating=ratings[::-1], time=times))
    assert (swapped - first).abs().max() > 0.1


@torch.inference_mode()
def test_a_rating_of_a_new_user_does_not_affect_its_own_score_among_seen_movies(spread, train):
    """Changing it leaves the score of its own movie as it was, and changes those of the others."""
    model, history = made(spread, train), as_new(spread.history(train).pad(torch.tensor([5])))
    rating = history.rating.clone()
    rating[0, 3] += 2
    before = scores_of_known(model, history)
    change = (scores_of_known(model, dataclasses.replace(history, rating=rating)) - before).abs()
    assert change[3] < 1e-5 < 1e-3 < change.max()


def test_a_new_user_gets_the_predictions_of_a_trained_one_with_the_same_ratings(spread):
    """After training has converged, without the MLP, on data in which each user likes exactly every second movie."""
    rows = np.arange(len(spread.user))
    likes = (spread.user + spread.movie) % 2 == 0
    rating = np.where(likes, 4, 2) + np.random.default_rng(0).normal(size=len(rows)) / 2
    spread = dataclasses.replace(spread, rating=rating.astype(np.float32))
    torch.manual_seed(0)
    config = NCFConfig(embedding_dim=4, hidden_dim=0, towers=("ids", "features"))
    model = Recommender(config, *model_inputs(spread, rows, FeatureConfig()))
    for one in (model.users.mean, model.movies.mean):
        torch.nn.init.normal_(one, std=0.7)
    trained(model, batch_of(spread, rows), steps=500)
    history = spread.history(rows).pad(torch.arange(30))
    with torch.inference_mode():
        own, new, unknown = (model.eval().score(one) for one in (history, as_new(history), one_history()))
    differences = [float((one - own).square().mean()) for one in (new, unknown)]
    assert differences[1] > 0.2 and differences[0] < 0.01 * differences[1]
