"""Tables of kept training runs: seeds that only one side has, and other protocols, do not count."""

import json

import pytest

from resultAnalyze import kept_trainings


def keep(folder, name: str, **record) -> None:
    folder.mkdir(exist_ok=True)
    same = {"dataset": "ml-1m", "split": "random", "ratios": [0.5, 0.3, 0.2], "preset": "ncf", "changes": {}}
    (folder / f"{name}.json").write_text(json.dumps(same | record))


def test_a_part_is_compared_with_the_wholes_of_its_own_seeds_and_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_trainings, "RESULTS", tmp_path)
    for seed in range(5):
        keep(tmp_path / "trainings", f"whole-{seed}", seed=seed, rmse=0.8 + 0.01 * seed)
        keep(tmp_path / "trainings", f"other-{seed}", seed=seed, rmse=0.5, dataset="ml-100k")
    for seed in range(3):
        without = {"seed": seed, "changes": {"hidden_dim": 0}}
        keep(tmp_path / "parts", f"part-{seed}", rmse=0.81 + 0.01 * seed + 0.001 * (seed - 1), **without)
    (found,) = kept_trainings.part_differences().itertuples()
    assert found.seeds == 3 and found.without == "the MLP"
    half = 4.302653 * 0.001 / 3**0.5  # of Student's t with 2 degrees of freedom
    assert (found.change, found.low, found.high) == pytest.approx((0.01, 0.01 - half, 0.01 + half), abs=1e-6)


def test_settings_of_a_preset_are_chosen_by_validation_and_not_by_the_test(tmp_path, monkeypatch):
    """Or they are the preset's own, where nothing validates."""
    monkeypatch.setattr(kept_trainings, "RESULTS", tmp_path)
    of_lists = {"ratios": [0.8, 0, 0.2], "relevance_threshold": 4, "val_ndcg@10": None, "parts": {}}
    lucky = {"changes": {"lr": 0.5}}
    for seed in range(3):
        for preset, val, test, more in (("ncf", 3, 4, {}), ("ncf", 5, 1, lucky), ("history", 2, 3, {})):
            figures = {"rmse": 0.8 + 0.01 * test + 0.001 * seed, "val_rmse": 0.8 + 0.01 * val, "parts": {}}
            keep(tmp_path / "trainings", f"{preset}-{test}-{seed}", preset=preset, seed=seed, **figures, **more)
        for preset, test, more in (("autoencoder", 0.4, {}), ("autoencoder", 0.5, lucky), ("ncf-ranking", 0.3, {})):
            figures = {"ndcg@10": test, **of_lists}
            keep(tmp_path / "trainings", f"{preset}-{test}-{seed}", preset=preset, seed=seed, **figures, **more)
    ratings, lists = kept_trainings.answers_table().splitlines()[2:]
    assert "| history | RMSE 0.8310 +- 0.0010, 3 seeds | ncf | -0.0100" in ratings
    assert "| autoencoder | NDCG@10 0.4000, 3 seeds | ncf-ranking |" in lists
