"""A finished run, read from its files."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from Models.inputs import RatingScale
from resultAnalyze.run_files import relevant_rows


@pytest.mark.parametrize(("low", "high"), [(1, 5), (0, 100), (-10, 10), (0, 1000)])
def test_a_rating_at_the_threshold_is_relevant_on_any_scale(low, high, tmp_path):
    """With the rank of its movie, if the list has it. Ratings are stored on the models' scale, in 32 bits."""
    scale, rating = RatingScale(low, high), np.arange(low, high + 1, dtype=np.float32)
    kept = scale.from_model(scale.to_model(rating).astype(np.float32))
    tested = pd.DataFrame({"user": 0, "movie": np.arange(len(rating)), "rating": kept})
    ids = SimpleNamespace(user_ids=[7], movie_ids=list(range(len(rating))))
    saved = SimpleNamespace(model=SimpleNamespace(stats=SimpleNamespace(scale=scale)), ids=ids)
    (tmp_path / "test_topn.csv").write_text(f"userId,rank,movieId,score\n7,3,{len(rating) - 1},0.5\n")
    for threshold in rating:
        test = {"relevance_threshold": float(threshold)}
        found = relevant_rows(SimpleNamespace(tested=tested.copy, test=test, saved=saved, folder=tmp_path))
        assert len(found) == (rating >= threshold).sum()
        assert found["rank"].iloc[-1] == 3 and found["rank"].iloc[:-1].isna().all()
