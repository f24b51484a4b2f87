"""What main.py trains, by the size of the data."""

import pytest

from main import configs_for


@pytest.mark.parametrize(
    ("n_movies", "n_ratings", "has_ratings", "expected"),
    [
        (3_883, 1_000_209, True, [("ncf", 12), ("autoencoder", 36)]),
        (3_883, 1_000_209, False, [("autoencoder", 36)]),
        (87_000, 31_000_000, True, [("ncf", 3), ("ncf-ranking", 4)]),
        (3_883, 10_000_000, True, [("ncf", 6), ("autoencoder", 18)]),
        (87_000, 1_000_000, False, [("ncf-ranking", 30)]),
    ],
)
def test_presets_and_epochs_suit_the_size_of_the_data(n_movies, n_ratings, has_ratings, expected):
    configs = configs_for(n_movies, n_ratings, has_ratings)
    assert [(config.preset, config.optim.epochs) for config in configs] == expected
