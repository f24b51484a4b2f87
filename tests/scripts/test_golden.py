"""Golden metrics: a small training for each preset must reproduce its earlier figures.

The figures are in golden.json. If a change is meant to alter them: GOLDEN=write pytest tests/scripts/test_golden.py
"""

import json
import os
from pathlib import Path

import pytest
from helpers import rows_of, test_metrics

GOLDEN = Path(__file__).with_name("golden.json")
TRAININGS = {
    "history": ("--batch-size", 60),
    "ncf": ("--batch-size", 32),
    "original": ("--batch-size", 32),
    "ncf-ranking": ("--batch-size", 8),
    "transformer": ("--batch-size", 8),
    "gru": ("--batch-size", 8, "--split", "leave-one-out"),
    "autoencoder": ("--batch-size", 8),
    "content": ("--batch-size", 8),
}


def figures(run: Path) -> dict[str, float]:
    """Every metric of every epoch and of the test."""
    found = {}
    for row in rows_of(run / "metrics.csv"):
        found |= {f"epoch {row['epoch']} {k}": float(v) for k, v in row.items() if k not in ("epoch", "seconds")}
    test = test_metrics(run)
    numbers = ("rmse", "mae", "loss", "hr@10", "ndcg@10", "map@10", "coverage", "overlap", "popularity", "novelty")
    found |= {f"test {name}": test[name] for name in numbers if name in test}
    return found | {f"most popular {k}": v for k, v in test.get("most_popular", {}).items()}


@pytest.mark.parametrize("preset", TRAININGS)
def test_figures_are_what_they_were(run_script, places, tmp_path, preset):
    flags = ("--preset", preset, "--epochs", 3, *TRAININGS[preset])
    run_script("train.py", *places, "--run", tmp_path / "run", *flags)
    found = figures(tmp_path / "run")
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(golden | {preset: found}, indent=1, sort_keys=True) + "\n")
        return
    assert found == pytest.approx(golden[preset], rel=1e-5, abs=1e-7)
