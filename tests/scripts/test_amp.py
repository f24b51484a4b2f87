"""Mixed precision: runs with --amp equal those without, except for rounding; and the benchmark that compares them."""

import json

import pytest
from helpers import SMALL, rows_of, train_here

from Models.configs import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_mixed_precision_changes_a_training_by_rounding_alone(places, tmp_path, preset):
    flags = ("--preset", preset, "--epochs", 1, *SMALL.get(preset, ()))
    exact, mixed = (
        float(rows_of(train_here(*places, "--run", tmp_path / name, *flags, *more) / "metrics.csv")[0]["train_loss"])
        for name, more in (("exact", ()), ("mixed", ("--amp",)))
    )
    assert mixed == pytest.approx(exact, rel=0.01)
    if preset in ("autoencoder", "transformer", "gru"):  # where rounding in products changes the last digits
        assert mixed != exact
    if preset == "history":
        assert mixed == exact


def test_presets_are_timed_on_a_device(run_script, places, tmp_path):
    flags = ("--device", "cpu", "--presets", "ncf", "transformer", "--output", tmp_path / "found.json")
    done = run_script("resultAnalyze/benchmark_device.py", *places, *flags)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["device"] == "cpu" and "| transformer | amp |" in done.stdout
    assert [(row["preset"], row["variant"]) for row in found["rows"]] == [
        (preset, variant) for preset in ("ncf", "transformer") for variant in ("single precision", "amp")
    ]
    for row in found["rows"]:
        assert row["samples_per_second"] > 0 and row["peak_memory_gib"] is None and row["difference_to_cpu"] == 0
    unknown = run_script("resultAnalyze/benchmark_device.py", *places, "--presets", "nothing", code=1)
    assert "There is no preset 'nothing'" in unknown.stderr
