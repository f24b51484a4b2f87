"""python main.py from nothing, on the real MovieLens 100K."""

import json
from pathlib import Path

from helpers import copy_of_repo


def runs_in(root: Path) -> dict[str, list[Path]]:
    """The finished runs of each preset, the tested one before the final one."""
    found: dict[str, list[Path]] = {}
    for run in sorted((root / "runs").iterdir(), key=lambda run: (run / "final.json").is_file()):
        assert (run / "test_metrics.json").is_file() != (run / "final.json").is_file()
        found.setdefault(json.loads((run / "config.json").read_text())["config"]["preset"], []).append(run)
    return found


def test_main_makes_everything_from_nothing_on_ml_100k(run_script, ml_100k, real_encoder, tmp_path):
    """The data's host may be slow or out of reach, so --data names a copy; the encoder is the real one."""
    clone = copy_of_repo(tmp_path / "clone")
    done = run_script("main.py", "--data", ml_100k, "--encoder", real_encoder, "--user", 2, root=clone)
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("Top 10 recommended movie IDs for user 2: [")
    assert ["rank", "id", "title", "score", "prediction", "genres"] in [line.split() for line in lines]
    assert "nothing to do" not in done.stdout and "trains it on all" not in done.stderr
    for made in ("dataset/ml-100k.pkl", "dataset/ml-100k_genre2idx.pkl", "resultAnalyze/Figure_1.png"):
        assert (clone / made).is_file()
    runs = runs_in(clone)
    assert {preset: len(found) for preset, found in runs.items()} == {"ncf": 2, "autoencoder": 2}
    for tested, final in runs.values():
        record = json.loads((final / "final.json").read_text())
        assert record["train_rows"] == 100_000
        assert record["epochs"] == json.loads((tested / "test_metrics.json").read_text())["best_epoch"]
        assert json.loads((final / "config.json").read_text())["config"]["run"]["final"] == str(tested)
    tested = [json.loads((found[0] / "test_metrics.json").read_text()) for found in runs.values()]
    figures = {test["preset"]: test for test in tested}
    assert figures["ncf"]["rmse"] < 0.94  # biases alone reach .95
    assert figures["autoencoder"]["ndcg@10"] > 1.5 * figures["autoencoder"]["most_popular"]["ndcg@10"]
