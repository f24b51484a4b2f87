"""Layers that models share: divergences against torch.distributions; sums, clocks and losses against plain loops."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from Models.HistoryRecommender import clock_features
from Models.layers import (
    DAY,
    N_CLOCK,
    Posterior,
    SessionBiases,
    SumOverRaters,
    clock_numbers,
    count_before,
    draw_candidates,
    loss_of_hidden,
    place_in_history,
    rating_weights,
)
from Models.sequences import NEW_USER, History, PaddedHistory, offsets

# --- Gaussian parameters -------------------------------------------------------------------------


def posterior(seed: int = 0, n: int = 7, dim: int = 3) -> Posterior:
    """A posterior with random means and variances, in float64."""
    torch.manual_seed(seed)
    one = Posterior(n, dim, 1.0).double()
    torch.nn.init.normal_(one.mean, std=2.0)
    torch.nn.init.normal_(one.log_std)
    return one


def kl(one: Posterior, prior_variance: torch.Tensor) -> torch.Tensor:
    """The full divergence from priors around 0, including its constant."""
    prior = Normal(torch.zeros_like(one.mean), prior_variance.sqrt().expand_as(one.mean))
    return kl_divergence(Normal(one.mean, one.log_std.exp()), prior).sum()


def gradients_of(loss: torch.Tensor, one: Posterior) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(one.parameters())))


def test_the_divergence_from_a_known_prior_is_that_of_torch_up_to_a_constant():
    """Compared are the difference between two posteriors and the gradients of one."""
    variance = torch.full((3,), 1 / 2.5).double()
    one, other = posterior(0), posterior(1)
    expected = kl(one, variance) - kl(other, variance)
    torch.testing.assert_close(one.divergence(2.5) - other.divergence(2.5), expected)
    torch.testing.assert_close(gradients_of(one.divergence(2.5), one), gradients_of(kl(one, variance), one))


def test_the_prior_variance_makes_the_divergence_least():
    one = posterior()
    best = one.prior_variance().detach()
    for dim in range(3):
        for factor in (0.9, 1.1):
            changed = best.clone()
            changed[dim] *= factor
            assert kl(one, changed) > kl(one, best)
    mean, std = one.mean.tolist(), one.log_std.exp().tolist()
    by_hand = [sum(mean[k][dim] ** 2 + std[k][dim] ** 2 for k in range(7)) / 7 for dim in range(3)]
    torch.testing.assert_close(best, torch.tensor(by_hand, dtype=torch.float64))


def test_the_divergence_without_a_precision_is_that_from_the_best_prior():
    """Compared are the difference between two posteriors and the gradients of one, with its best prior held fixed."""
    one, other = posterior(0), posterior(1)
    best, best_other = one.prior_variance(), other.prior_variance()
    torch.testing.assert_close(one.divergence() - other.divergence(), kl(one, best) - kl(other, best_other))
    torch.testing.assert_close(gradients_of(one.divergence(), one), gradients_of(kl(one, best.detach()), one))


def test_a_posterior_is_sampled_in_training_and_its_mean_in_use():
    one = posterior()
    torch.testing.assert_close(one.variance(), one.log_std.exp() ** 2)
    draws = torch.stack([one().detach() for _ in range(20_000)])
    scale = one.log_std.detach().exp()
    assert ((draws.mean(0) - one.mean).abs() < 0.05 * scale).all() and (draws.std(0) / scale - 1).abs().max() < 0.05
    assert one.eval()() is one.mean


# --- sums over raters ----------------------------------------------------------------------------


def test_the_sum_over_raters_and_its_gradient_are_those_of_plain_loops():
    """For 5 movies, from the vectors of 6 users; user 2 rated nothing, and movie 3 has no rater."""
    pairs = [(0, 0), (0, 2), (1, 1), (3, 0), (3, 1), (3, 4), (4, 2), (5, 4)]  # user, movie
    user, movie = torch.tensor(pairs).T
    by_movie = torch.argsort(movie, stable=True)
    starts = offsets(torch.bincount(movie, minlength=5)), offsets(torch.bincount(user, minlength=6))
    torch.manual_seed(0)
    vectors, slope = torch.randn(6, 3, requires_grad=True), torch.randn(5, 3)
    found = SumOverRaters.apply(vectors, user[by_movie], starts[0], movie, starts[1])
    (gradient,) = torch.autograd.grad((found * slope).sum(), vectors)
    sums, gradients = torch.zeros(5, 3), torch.zeros(6, 3)
    for u, i in pairs:
        sums[i] += vectors[u].detach()
        gradients[u] += slope[i]
    torch.testing.assert_close(found, sums)
    torch.testing.assert_close(gradient, gradients)
    assert found[3].abs().sum() == 0 and gradient[2].abs().sum() == 0


# --- the clock -----------------------------------------------------------------------------------

NOW = 978_300_000
TIMES = [[NOW, NOW, NOW, NOW + 90_000, NOW + 90_000], [], [5, 400_000_000], [NOW - 7], []]  # a list per user, with ties


def history_of(times: list[list[int]]) -> History:
    """Users who rated at these times; the movies and ratings do not matter."""
    time = torch.tensor([one for user in times for one in user], dtype=torch.int64)
    size = torch.tensor([len(user) for user in times])
    return History(offsets(size, closed=True), torch.zeros_like(time), time.float(), time)


def padded(times: list[list[int]]) -> PaddedHistory:
    return history_of(times).pad(torch.arange(len(times)))


def asked(times: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Users and times to query: each user at all times, just before and after them, and long before and after all."""
    known = [one for user in times for one in user]
    ask = sorted({one + more for one in known for more in (-1, 0, 1)} | {0, 10**10})
    return torch.tensor([(user, time) for user in range(len(times)) for time in ask]).T.contiguous()


def test_the_count_of_older_ratings_is_that_of_a_plain_loop():
    user, time = asked(TIMES)
    expected = [sum(one < t for one in TIMES[u]) for u, t in zip(user.tolist(), time.tolist(), strict=True)]
    assert count_before(history_of(TIMES), user, time).tolist() == expected
    assert len(expected) > 50 and set(expected) == {0, 1, 2, 3, 5}


def test_the_count_is_right_where_all_ratings_have_one_time():
    user, time = torch.tensor([0, 1, 2, 2, 2]), torch.tensor([7, 7, 7, 8, 6])
    assert count_before(history_of([[7], [], [7, 7]]), user, time).tolist() == [0, 0, 0, 2, 0]


def clock_by_hand(times: list[int], time: int, year: int) -> list[float]:
    day, week = (2 * math.pi * (time % size) / size for size in (86_400, 7 * 86_400))
    days = max(time - times[0], 0) / 86_400 if times else 0
    age = 1970 + time / (365.25 * 86_400) - year if year else 0
    numbers = math.log1p(days) / 4, math.log1p(sum(one < time for one in times)) / 4
    waves = math.sin(day), math.cos(day), math.sin(week), math.cos(week)
    return [*numbers, *waves, min(max(age, 0), 100) / 25]


def years(n: int) -> torch.Tensor:
    """Release years of the queried movies: long ago, usual, unknown and in the future."""
    return torch.tensor([1850.0, 1995.0, 0.0, 2040.0]).repeat(n)[:n]


@pytest.mark.parametrize("times", [TIMES, [[], []]], ids=["some ratings", "no ratings"])
def test_the_clock_is_that_of_plain_loops(times):
    user, time = asked(TIMES)
    user = user % len(times)
    year = years(len(user))
    found = clock_numbers(time, *place_in_history(history_of(times), user, time), year)
    rows = zip(user.tolist(), time.tolist(), year.int().tolist(), strict=True)
    expected = torch.tensor([clock_by_hand(times[u], t, y) for u, t, y in rows])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.shape == (len(user), N_CLOCK)


def test_the_clock_counts_hours_and_days_from_utc_midnight():
    """At six in the morning UTC on 1 January 2001, a Monday; 1 January 1970 was a Thursday."""
    time = torch.tensor([978_307_200 + int(DAY) // 4])
    found = clock_numbers(time, *place_in_history(history_of([[NOW]]), torch.tensor([0]), time), years(1))[0]
    assert found[2:4].tolist() == pytest.approx([1, 0], abs=1e-3)
    week = 2 * math.pi * 4.25 / 7
    assert found[4:6].tolist() == pytest.approx([math.sin(week), math.cos(week)], abs=1e-3)


@pytest.mark.parametrize("times", [TIMES, [[], []]], ids=["some ratings", "no ratings"])
def test_the_clock_is_that_of_padded_histories(times):
    """All times of each user at once, in the history model's shape, [users, times]."""
    _, time = asked(TIMES)
    time = time.unique().expand(len(times), -1)
    year = years(time.numel()).view_as(time)
    user = torch.arange(len(times))[:, None].expand_as(time)
    place = place_in_history(history_of(times), user.flatten(), time.flatten())
    found = clock_numbers(time, *(part.view_as(time) for part in place), year)
    torch.testing.assert_close(found, clock_features(padded(times), time, year))


# --- sessions ------------------------------------------------------------------------------------


@st.composite
def times_of_users(draw) -> list[list[int]]:
    """Ascending rating times of some users, often close together; some users have none."""
    apart = st.sampled_from([0, 1, 5, 9, 10, 11, 99, 100, 101, 500])
    users = draw(st.lists(st.lists(apart, max_size=8), min_size=1, max_size=5).filter(any))
    return [[1000 + sum(one[: k + 1]) for k in range(len(one))] for one in users]


def sessions_by_hand(times: list[list[int]], gap: int) -> list[tuple[int, int, int]]:
    """User, first and last time of each session, in the order of users and times."""
    found: list[tuple[int, int, int]] = []
    for user, own in enumerate(times):
        for time in own:
            if found and found[-1][0] == user and time - found[-1][2] <= gap:
                found[-1] = (user, found[-1][1], time)
            else:
                found.append((user, time, time))
    return found


@settings(deadline=None, max_examples=100)
@given(times_of_users())
def test_sessions_are_runs_without_a_break(times):
    """Checked at every time around the ratings, also for a new user; between two sessions the earlier one counts."""
    gaps = (0, 10, 100)
    user = torch.tensor([u for u, own in enumerate(times) for _ in own])
    time = torch.tensor([one for own in times for one in own])
    known = History.of(user, torch.zeros_like(user), torch.ones(len(user)), time, len(times))
    model = SessionBiases(known, gaps)
    for bias in model.biases:
        torch.nn.init.normal_(bias.mean)
        torch.nn.init.normal_(bias.log_std)
    by_hand = [sessions_by_hand(times, gap) for gap in gaps]
    assert [len(bias.mean) for bias in model.biases] == [len(one) for one in by_hand]
    asked = sorted(
        {one + d for own in times for one in own for d in (-101, -100, -11, -10, -1, 0, 1, 10, 11, 100, 101)}
    )
    for u in (NEW_USER, *range(len(times))):
        mean, variance = model(known, torch.full((len(asked),), u), torch.tensor(asked))
        expected = torch.zeros(2, len(asked))
        for gap, bias, sessions in zip(gaps, model.biases, by_hand, strict=True):
            for k, t in enumerate(asked):
                near = [n for n, (v, first, last) in enumerate(sessions) if v == u and first - gap <= t <= last + gap]
                if near:
                    expected[:, k] += torch.stack([bias.mean[near[0], 0], bias.variance()[near[0], 0]]).detach()
        torch.testing.assert_close(torch.stack([mean, variance]), expected)


def test_without_breaks_there_are_no_sessions():
    known = History.of(torch.tensor([0, 0]), torch.tensor([1, 2]), torch.ones(2), torch.tensor([5, 6]), 1)
    model = SessionBiases(known, ())
    mean, variance = model(known, torch.tensor([0]), torch.tensor([5]))
    assert not list(model.parameters()) and mean.tolist() == variance.tolist() == [0.0] and model.divergence() == 0


# --- the loss of hidden movies -------------------------------------------------------------------

STEPS = (0.0, 0.1, 0.3, 0.6, 1.0)


def test_rating_weights_have_straight_lines_between_their_steps():
    """At whole and half stars; below the lowest step, the weight is that of the lowest step."""
    torch.testing.assert_close(rating_weights(torch.arange(1.0, 6.0), STEPS), torch.tensor(STEPS))
    by_halves = rating_weights(torch.arange(1.0, 11.0) / 2, STEPS)
    torch.testing.assert_close(by_halves, torch.tensor([0.0, 0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0]))


def test_rating_weights_can_be_learned():
    """A rating of 3.5 stands halfway between the third and the fourth step."""
    steps = torch.tensor(STEPS, requires_grad=True)
    rating_weights(torch.tensor([[3.5, 5.0]]), steps).sum().backward()
    assert steps.grad.tolist() == pytest.approx([0, 0, 0.5, 0.5, 1])


def histories(*users: list[tuple[int, float]]) -> PaddedHistory:
    """Padded histories of (movie, rating), one list for each user."""
    length = max(map(len, users))
    movie = torch.tensor([[m for m, _ in one] + [0] * (length - len(one)) for one in users])
    rating = torch.tensor([[r for _, r in one] + [0.0] * (length - len(one)) for one in users])
    mask = torch.tensor([[True] * len(one) + [False] * (length - len(one)) for one in users])
    return PaddedHistory(
        torch.arange(len(users)),
        movie,
        rating,
        torch.zeros_like(movie),
        mask,
        torch.zeros(len(users), dtype=torch.int64),
    )


def test_the_loss_of_hidden_movies_by_hand():
    """Whatever is hidden: a user's cross-entropy among what is not shown, over the root of the targets' weight sum."""
    torch.manual_seed(0)
    known = histories([(0, 5.0), (3, 4.0), (5, 1.0), (6, 3.0)], [(2, 5.0), (4, 2.0)], [(1, 5.0)])
    scores, shown = torch.randn(3, 7), []
    target = {1: 0.0, 2: 0.03, 3: 0.15, 4: 1.0, 5: 1.0}
    for _ in range(20):
        loss = loss_of_hidden(known, lambda visible: shown.append(visible) or scores)
        expected = []
        for k in range(3):
            seen = shown[-1].movie[k][shown[-1].mask[k]].tolist()
            everything = zip(known.movie[k].tolist(), known.rating[k].tolist(), known.mask[k].tolist(), strict=True)
            hidden = {m: target[int(r)] for m, r, real in everything if real and m not in seen and target[int(r)]}
            norm = torch.logsumexp(scores[k, [m for m in range(7) if m not in seen]], 0)
            total = sum(w * float(norm - scores[k, m]) for m, w in hidden.items())
            expected.append(total / math.sqrt(sum(hidden.values())) if hidden else 0.0)
        assert float(loss) == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert len({tuple(one.mask.flatten().tolist()) for one in shown}) > 5


# --- candidates of a training step ---------------------------------------------------------------


def test_all_movies_of_a_small_catalogue_are_candidates():
    known = histories([(0, 5.0), (3, 4.0)], [(2, 5.0)])
    history, movies, log_weight = draw_candidates(known, 7, n_others=4)
    assert history is known and movies == slice(None) and float(log_weight) == 0


def test_candidates_are_what_the_users_rated_and_as_many_others_as_asked_for():
    known = histories([(90, 5.0), (3, 4.0)], [(41, 5.0)])
    history, movies, log_weight = draw_candidates(known, 100, n_others=10)
    assert len(movies) == 13 and movies.tolist() == sorted(set(movies.tolist()))
    assert movies[history.movie][known.mask].tolist() == known.movie[known.mask].tolist()
    is_own = torch.isin(movies, torch.tensor([3, 41, 90]))
    assert is_own.sum() == 3
    torch.testing.assert_close(log_weight, torch.where(is_own, 0.0, math.log(97 / 10)))


def test_the_softmax_over_candidates_has_the_denominator_of_all_movies_on_average():
    torch.manual_seed(0)
    known, scores = histories([(90, 5.0), (3, 4.0)]), torch.randn(100).double()
    denominators = []
    for _ in range(2000):
        _, movies, log_weight = draw_candidates(known, 100, n_others=10)
        denominators.append(float((scores[movies] + log_weight).exp().sum()))
    mean, error = statistics.mean(denominators), statistics.stdev(denominators) / len(denominators) ** 0.5
    assert abs(mean - float(scores.exp().sum())) < 4 * error
    assert error < 0.02 * mean
