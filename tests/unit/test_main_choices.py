"""What main.py trains, depending on the size of the data."""

import pytest

from main import configs_for


@pytest.mark.parametrize(
    ("n_movies", "n_ratings", "has_ratings", "expected"),
    [
        (3_883, 1_000_209, True, [("ncf", 12, 4096), ("autoencoder", 36, 256)]),
        (3_883, 1_000_209, False, [("autoencoder", 36, 256)]),
        (87_000, 31_000_000, True, [("ncf", 4, 126_976), ("ncf-ranking", 4, 256)]),
        (3_883, 10_000_000, True, [("ncf", 6, 40_960), ("autoencoder", 18, 256)]),
        (87_000, 1_000_000, False, [("ncf-ranking", 30, 256)]),
    ],
)
def test_presets_and_epochs_suit_the_size_of_the_data(n_movies, n_ratings, has_ratings, expected):
    configs = configs_for(n_movies, n_ratings, has_ratings)
    assert [(config.preset, config.optim.epochs, config.optim.batch_size) for config in configs] == expected
