"""Histories against plain lists: padding, windows, leaving one out, and the counts and groups behind them."""

import torch
from helpers import one_history
from hypothesis import given
from hypothesis import strategies as st

from Models.sequences import History, PaddedHistory, cumcount, group_by_size, offsets, pad_batch

# The ratings of a user, oldest first, as (movie, rating, time).
Ratings = list[tuple[int, float, int]]
ratings = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([0.5, 1.0, 3.5, 5.0]), st.integers(0, 99)), max_size=8
).map(lambda rows: sorted(rows, key=lambda row: row[2]))
all_users = st.lists(ratings, min_size=1, max_size=5)


def history_of(users: list[Ratings]) -> History:
    rows = [(user, *row) for user, own in enumerate(users) for row in own]
    columns = [torch.tensor([row[k] for row in rows], dtype=kind) for k, kind in enumerate(KINDS)]
    return History.of(*columns, len(users))


KINDS = (torch.int64, torch.int64, torch.float32, torch.int64)


def lists_of(padded: PaddedHistory) -> list[Ratings]:
    """The ratings of each user; padding must stand at the end."""
    found = []
    for movie, rating, time, mask in zip(padded.movie, padded.rating, padded.time, padded.mask, strict=True):
        n = int(mask.sum())
        assert mask.tolist() == [True] * n + [False] * (len(mask) - n)
        found.append(list(zip(movie[:n].tolist(), rating[:n].tolist(), time[:n].tolist(), strict=True)))
    return found


# --- histories -----------------------------------------------------------------------------------


@given(all_users, st.data())
def test_padding_gives_back_the_ratings_of_the_users_asked_for(users, data):
    asked = data.draw(st.lists(st.integers(0, len(users) - 1), min_size=1, max_size=6))
    history = history_of(users)
    padded = history.pad(torch.tensor(asked))
    assert lists_of(padded) == [users[user] for user in asked]
    assert padded.user.tolist() == asked
    assert padded.lengths().tolist() == history.lengths(torch.tensor(asked)).tolist()
    assert padded.movie.shape[1] == max(1, *(len(users[user]) for user in asked))


@given(all_users)
def test_every_rating_knows_its_user(users):
    assert history_of(users).users().tolist() == [user for user, own in enumerate(users) for _ in own]


@given(all_users, st.data())
def test_a_row_is_the_history_of_one_user_without_padding(users, data):
    k = data.draw(st.integers(0, len(users) - 1))
    row = history_of(users).pad(torch.arange(len(users))).row(k)
    assert lists_of(row) == [users[k]] and row.user.tolist() == [k]
    assert row.movie.shape == (1, max(1, len(users[k])))


@given(all_users, st.integers(1, 10), st.data())
def test_a_window_is_a_slice(users, length, data):
    first = [data.draw(st.integers(0, len(own))) for own in users]
    padded = history_of(users).pad(torch.arange(len(users))).window(torch.tensor(first), length)
    assert lists_of(padded) == [own[start : start + length] for own, start in zip(users, first, strict=True)]
    assert padded.user.tolist() == list(range(len(users)))


@given(all_users, st.integers(1, 10))
def test_the_latest_ratings_are_the_last_ones(users, length):
    padded = history_of(users).pad(torch.arange(len(users))).latest(length)
    assert lists_of(padded) == [own[-length:] for own in users]


@given(ratings.filter(len), st.integers(0, 3))
def test_without_each_leaves_out_one_rating_at_a_time(own, padding):
    """The history may be padded."""
    padded = history_of([own, own + [(0, 1.0, 100)] * padding]).pad(torch.arange(2))
    one = PaddedHistory(*(column[:1] for column in vars(padded).values()))
    others = one.without_each()
    assert lists_of(others) == [own[:k] + own[k + 1 :] for k in range(len(own))]
    assert others.user.tolist() == [0] * len(own)
    assert others.movie.shape == (len(own), max(1, len(own) - 1))


def test_a_single_rating_left_out_leaves_an_empty_history():
    others = one_history(3).without_each()
    assert others.movie.shape == (1, 1) and not others.mask.any()


# --- batches -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 5), st.integers(0, 99)), min_size=1))
def test_a_batch_becomes_a_history_per_user_and_back(rows):
    user, movie, rating, time = (torch.tensor(column) for column in zip(*rows, strict=True))
    batch = {"user": user, "movie": movie, "rating": rating.float(), "time": time}
    padded, where = pad_batch(batch)
    users = sorted(set(user.tolist()))
    assert padded.user.tolist() == users
    assert lists_of(padded) == [[row[1:] for row in rows if row[0] == u] for u in users]
    assert torch.equal(padded.movie[where], movie) and torch.equal(padded.time[where], time)
    assert torch.equal(padded.user[where[0]], user)


def test_a_batch_without_ratings_has_zeros_in_their_place():
    batch = {"user": torch.tensor([3, 3, 1]), "movie": torch.tensor([5, 6, 7]), "time": torch.tensor([1, 2, 3])}
    padded, _ = pad_batch(batch)
    assert padded.rating.tolist() == [[0, 0], [0, 0]] and padded.movie.tolist() == [[7, 0], [5, 6]]


# --- counts and groups ---------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1))
def test_cumcount_counts_the_equal_values_before(group):
    assert cumcount(torch.tensor(group)).tolist() == [group[:k].count(value) for k, value in enumerate(group)]


@given(st.lists(st.integers(0, 7), min_size=1))
def test_offsets_are_the_sums_of_the_sizes_before(sizes):
    ends = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    assert offsets(torch.tensor(sizes)).tolist() == ends[:-1]
    assert offsets(torch.tensor(sizes), closed=True).tolist() == ends


@given(st.lists(st.integers(0, 7)), st.integers(1, 20), st.randoms())
def test_groups_are_consecutive_within_the_limit_and_none_is_smaller_than_it_must_be(size, limit, random):
    order = list(range(len(size)))
    random.shuffle(order)
    groups = group_by_size(order, size, limit)
    totals = [sum(size[item] for item in group) for group in groups]
    assert [item for group in groups for item in group] == order
    assert all(total <= limit or len(group) == 1 for total, group in zip(totals, groups, strict=True))
    for total, following in zip(totals, groups[1:], strict=False):
        assert total + size[following[0]] > limit


def test_the_latest_times_are_those_of_each_users_last_rating():
    """Users without ratings get 0."""
    history = history_of([[(3, 4.0, 10), (5, 1.0, 70)], [], [(2, 5.0, 30)]])
    assert history.latest_times().tolist() == [70, 0, 30]
    assert history.pad(torch.arange(3)).request_time.tolist() == [70, 0, 30]
