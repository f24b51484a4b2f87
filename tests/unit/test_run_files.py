"""A finished run, read from its files."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from Models.inputs import RatingScale
from resultAnalyze.run_files import relevant_rows


@pytest.mark.parametrize(("low", "high"), [(1, 5), (0, 100), (-10, 10), (0, 1000)])
def test_a_rating_at_the_threshold_is_relevant_on_any_scale(low, high):
    """Ratings are stored on the models' scale, in 32 bits."""
    scale, rating = RatingScale(low, high), np.arange(low, high + 1, dtype=np.float32)
    kept = scale.from_model(scale.to_model(rating).astype(np.float32))
    tested = pd.DataFrame({"user": 0, "movie": np.arange(len(rating)), "rating": kept})
    saved = SimpleNamespace(model=SimpleNamespace(stats=SimpleNamespace(scale=scale)))
    for threshold in rating:
        run = SimpleNamespace(tested=tested.copy, test={"relevance_threshold": float(threshold)}, saved=saved)
        assert len(relevant_rows(run)) == (rating >= threshold).sum()
