"""Sequential models: they do not see the future, and their loss equals its formula."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import RATIOS, batch_of, cross_entropy, one_history, random_model

from Models.ratings_data import split_rows
from Models.sequences import History, PaddedHistory, longest_gap
from Models.Sequential import Sequential, SequentialConfig

both_architectures = pytest.mark.parametrize("architecture", ["transformer", "gru"])


def made(data, rows=None, **config) -> Sequential:
    """A model of these rows, or of all ratings."""
    rows = np.arange(len(data.user)) if rows is None else rows
    config = SequentialConfig(**({"embedding_dim": 4, "max_length": 6, "num_layers": 2} | config))
    model = random_model(data, rows, config, blocks=("title", "genres"))
    model.stats = dataclasses.replace(model.stats, longest_gap=2 * 86_400)
    return model


@both_architectures
def test_no_output_knows_of_later_ratings(data, architecture):
    model = made(data, architecture=architecture)
    vectors = model.movie_vectors()
    one, other = one_history(3, 5, 7, 9), one_history(3, 5, 8, 2, rating=[4.0, 4.0, 1.0, 1.0])
    a, b = model.read(vectors, one)[0], model.read(vectors, other)[0]
    torch.testing.assert_close(a[:3], b[:3])  # before the first, after the first and after the second rating
    assert not torch.allclose(a[3], b[3], atol=1e-3)


@both_architectures
def test_padding_changes_nothing(data, architecture):
    model = made(data, architecture=architecture)
    padded = dataclasses.replace(one_history(3, 5, 7, 9, at=100), mask=torch.tensor([[True, True, False, False]]))
    torch.testing.assert_close(model.score(padded), model.score(one_history(3, 5)), atol=1e-5, rtol=1e-5)


@both_architectures
def test_order_ratings_and_times_change_the_scores(data, architecture):
    model = made(data, architecture=architecture)
    scores = model.score(one_history(3, 5, 7))
    others = one_history(5, 3, 7), one_history(3, 5, 7, rating=1.0), one_history(3, 5, 7, time=[0, 100, 10**7])
    assert all(not torch.allclose(model.score(other), scores, atol=1e-4) for other in others)


@both_architectures
def test_the_scores_depend_on_when_they_are_asked_for(data, architecture):
    """Up to the longest gap in training; without the time of the request, on the ratings' times alone."""
    model = made(data, architecture=architecture)
    asked = [one_history(3, 5, 7, at=200 + seconds) for seconds in (0, 3600, 10**6, 10**9)]
    at_once, later, longest, beyond = (model.score(history) for history in asked)
    assert not torch.allclose(at_once, later, atol=1e-3) and not torch.allclose(later, longest, atol=1e-3)
    torch.testing.assert_close(longest, beyond)
    unaware = made(data, architecture=architecture, request_time=False)
    torch.testing.assert_close(unaware.score(asked[0]), unaware.score(asked[1]))


def test_attention_depends_on_when_a_list_is_asked_for(data):
    """Even where the gap to the request is not an input."""
    model = made(data)
    torch.nn.init.zeros_(model.gap.weight)
    at_once, later = (model.score(one_history(3, 5, 7, at=200 + seconds)) for seconds in (0, 86_400))
    assert not torch.allclose(at_once, later, atol=1e-4)


@pytest.mark.parametrize("request_time", [True, False])
def test_times_by_hand(data, request_time):
    """Known ratings at 10, 40 and 40 seconds and a request at 90; the second user has a single rating."""
    model = made(data, request_time=request_time)
    history = PaddedHistory(
        user=torch.tensor([0, 1]),
        movie=torch.tensor([[3, 5, 7], [4, 0, 0]]),
        rating=torch.ones(2, 3),
        time=torch.tensor([[10, 40, 40], [20, 0, 0]]),
        mask=torch.tensor([[True, True, True], [True, False, False]]),
        request_time=torch.tensor([90, 25]),
    )
    time, request = model.times(history)
    assert time.tolist()[0] == [10, 10, 40, 40] and time.tolist()[1][:2] == [20, 20]
    assert request.tolist()[0] == ([10, 40, 40, 90] if request_time else [10, 10, 40, 40])
    assert request.tolist()[1][:2] == ([20, 25] if request_time else [20, 20])


def test_a_training_step_learns_from_the_time_of_each_next_rating(data):
    """h before a rating equals that of a list requested at that rating's time, from the earlier ratings alone."""
    model = made(data)
    vectors, times = model.movie_vectors(), [0, 50, 4000, 90_000]
    hidden = model.read(vectors, one_history(3, 5, 7, 9, time=times))[0]
    for k in (1, 2, 3):
        before = one_history(*[3, 5, 7, 9][:k], time=times[:k], at=times[k])
        torch.testing.assert_close(hidden[k], model.last_hidden(vectors, before)[0], atol=1e-5, rtol=1e-5)


def test_attention_by_hand(data):
    """softmax(q k / sqrt(d) + bias of the time to the request + bias of the distance) v, for one head and layer."""
    model = made(data, num_layers=1, num_heads=1)
    block, bias = model.layers[0], model.relative_bias
    x, gap = torch.randn(1, 3, 4), torch.tensor([[[0, 0, 0], [7, 2, 0], [9, 5, 1]]])
    q, k, v = block.to_qkv(block.before_attention(x[0])).split(4, dim=1)
    for row in range(3):
        logits = [
            q[row] @ k[j] / 2 + bias.by_gap.weight[gap[0, row, j], 0] + bias.by_distance.weight[row - j, 0]
            for j in range(row + 1)
        ]
        attended = torch.stack(logits).softmax(0) @ v[: row + 1]
        after = x[0, row] + block.from_heads(attended)
        linear = block.narrow(torch.nn.functional.gelu(block.widen(block.before_linear(after))))
        torch.testing.assert_close(block(x, bias(gap)[0])[0, row], after + linear, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("gaps", "longest"),
    [
        ([50] * 1000 + [5000] * 100 + [10**6] * 99, 5000),  # the hundredth longest
        ([1] + [10**6] * 89, 10**6),  # of few, one that at least a tenth reach
        ([30], 30),
    ],
)
def test_the_longest_gap_is_one_that_training_has_often_enough(gaps, longest):
    """Gaps between the ratings of one user, not those between two users."""
    time = torch.tensor([0, *np.cumsum(gaps), 10**9])
    user = torch.tensor([0] * (len(gaps) + 1) + [1])
    assert longest_gap(History.of(user, user, time.float(), time, 2)) == longest
    two = torch.tensor([0, 1])
    assert longest_gap(History.of(two, two, two.float(), torch.tensor([0, 5]), 2)) == 0


def test_longer_times_apart_count_as_the_longest_of_training(data):
    steps = made(data).gap_steps(torch.tensor([-5, 0, 1, 60, 2 * 86_400, 10**9]))
    assert steps.tolist() == [0, 0, 2, 13, 40, 40]  # log(1 + seconds) / .301, rounded down


@both_architectures
def test_the_least_length_reads_no_rating_at_all(data, architecture):
    model = made(data, architecture=architecture, max_length=1)
    torch.testing.assert_close(model.score(one_history(3, 5, 7)), model.score(one_history(2, 4, 8)))


def test_only_the_latest_ratings_count(data):
    model = made(data)
    long, same_end = one_history(*range(10)), one_history(20, 21, *range(2, 10))
    torch.testing.assert_close(model.score(long)[0], model.score(same_end)[0], atol=1e-4, rtol=1e-4)


def test_the_loss_by_hand(data):
    """For each rated movie, cross-entropy among itself and the known movies outside the window; and the gradients."""
    rows = np.flatnonzero(np.isin(data.user, [0, 1]))
    model = made(data, rows)
    history = one_history(*data.movie[rows][:4].tolist())
    vectors = model.movie_vectors().detach().requires_grad_()
    hidden = model.read(vectors, history).detach().requires_grad_()
    rated = history.movie[0].tolist()
    others = sorted(set(data.movie[rows].tolist()) - set(rated))
    losses = [cross_entropy(vectors @ hidden[0, k], movie, others) for k, movie in enumerate(rated)]
    expected, loss = torch.stack(losses).mean(), model.loss(vectors, hidden, history)
    torch.testing.assert_close(loss, expected)
    gradients = (torch.autograd.grad(2 * value, (vectors, hidden)) for value in (loss, expected))
    for ours, right in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, right)


def test_the_training_loss_is_that_of_all_histories_of_the_batch(data):
    """The users have at most `max_length` ratings, so that the windows are not random."""
    rows = np.concatenate([np.flatnonzero(data.user == user)[:n] for user, n in ((3, 6), (8, 2))])
    model = made(data, rows, dropout=0.0).train()
    output = model(batch_of(data, rows))
    history = data.history(rows).pad(torch.tensor([3, 8]))
    vectors = model.movie_vectors()
    losses = []
    for k, n in enumerate((6, 2)):
        own = history.row(k)
        losses.append(model.loss(vectors, model.read(vectors, own), own) * n)
    torch.testing.assert_close(output.loss, sum(losses) / 8)
    assert output.n_samples == 8 and output.prediction is None


def test_no_list_is_made_by_a_position_that_training_has_not_reached(data):
    """For a user with more ratings than a training step holds, lists read one fewer: a step only predicts its last."""
    model = made(data).train()
    rows = np.flatnonzero(data.user == 3)
    assert len(rows) > 6
    model(batch_of(data, rows)).loss.backward()
    untrained = ~(model.position.weight.grad != 0).any(1)
    assert untrained.tolist() == [False] * 6 + [True]
    model.eval()
    before = model.score(one_history(*range(10)))
    torch.nn.init.constant_(model.position.weight[6:], 100.0)
    torch.testing.assert_close(model.score(one_history(*range(10))), before)


def test_a_training_window_is_the_latest_ratings_or_any_other(data):
    model = made(data)
    torch.manual_seed(0)
    windows = [model.window(one_history(*range(10))).movie[0].tolist() for _ in range(200)]
    assert {tuple(window) for window in windows} == {tuple(range(first, first + 6)) for first in range(5)}
    assert windows.count(list(range(4, 10))) / 200 == pytest.approx(0.5 + 0.5 / 5, abs=0.12)


def test_movies_that_training_does_not_know_are_ranked_by_their_features(data):
    split = split_rows(data, "cold-movies", RATIOS)
    model = made(data, split.train)
    cold = np.setdiff1d(np.arange(27), data.movie[split.train])
    vectors = model.movie_vectors()
    torch.testing.assert_close(vectors[cold], model.from_features(model.features[cold]))
    assert model.score(one_history(3, 5))[0, cold].unique().numel() > 1


def test_without_ids_or_with_all_of_them_dropped_only_features_count(data):
    for model in (made(data, id_dropout=0.999).train(), made(data, ids=False)):
        torch.testing.assert_close(model.movie_vectors(), model.from_features(model.features))


def test_data_without_times_is_noticed(data):
    assert made(data).notices == []
    notices = made(dataclasses.replace(data, time=None)).notices
    assert notices == ["The data has no times: the order of the file stands in for them."]
