"""resultAnalyze/synthetic.py as a user runs it."""

import json

SCRIPT = "resultAnalyze/synthetic.py"


def test_the_command_writes_a_data_set_and_its_truth(run_script, tmp_path):
    sizes = ("--users", 100, "--movies", 300, "--ratings", 3000)
    done = run_script(SCRIPT, *sizes, "--output", tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["movies.csv", "ratings.csv", "truth.json"]
    truth = json.loads((tmp_path / "made/truth.json").read_text())
    words = f"Wrote {truth['ratings']:,} ratings to made: RMSE {truth['rmse_of_truth']:.4f} of the true expectation"
    assert done.stdout.startswith(words)
    dense = run_script(SCRIPT, *sizes, "--movies", 50, "--output", tmp_path / "dense", code=1)
    assert "a quarter of all pairs" in dense.stderr and not (tmp_path / "dense").exists()
