"""calibration.py: groups of a run's test ratings by how many ratings of their users and movies were known."""

import pytest
from helpers import rows_of, tiny_ratings


def test_the_command_counts_ratings_outside_the_test(run_script, tiny_run, tmp_path):
    done = run_script("resultAnalyze/calibration.py", "--run", tiny_run, "--output", tmp_path / "c.png", "--groups", 3)
    assert "The mean prediction is " in done.stdout and "off; a prediction higher by 1" in done.stdout
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    table, tested = rows_of(tmp_path / "c.csv"), rows_of(tiny_run / "test_predictions.csv")
    for by, column, number in (("popularity", "movieId", 1), ("activity", "userId", 0)):
        known: dict[str, int] = {}
        for row in tiny_ratings():
            known[str(row[number])] = known.get(str(row[number]), 0) + 1
        for row in tested:
            known[row[column]] -= 1
        expected = [known[row[column]] for row in tested]
        groups = [row for row in table if row["by"] == by]
        assert min(expected) == float(groups[0]["low"]) and max(expected) == float(groups[-1]["high"])
        assert sum(int(row["rows"]) for row in groups) == len(tested)
        errors = sum(int(row["rows"]) * float(row["rmse"]) ** 2 for row in groups)
        plain = sum((float(row["prediction"]) - float(row["rating"])) ** 2 for row in tested)
        assert errors == pytest.approx(plain)
