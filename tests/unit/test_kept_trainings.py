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
