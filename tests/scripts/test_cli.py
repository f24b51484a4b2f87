"""Every script as a command: help with the default of each flag, and exit code 2 for wrong usage."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, main_here

SCRIPTS = [
    *("main.py", "train.py", "generate_recommendation.py", "utils/BERT.py", "utils/download.py", "utils/metadata.py"),
    *("resultAnalyze/loss_ananlyze.py", "resultAnalyze/benchmark.py", "resultAnalyze/compare_baselines.py"),
    *("resultAnalyze/ablation.py", "resultAnalyze/tables.py", "resultAnalyze/calibration.py"),
    *("resultAnalyze/synthetic.py", "resultAnalyze/demo.py", "resultAnalyze/report.py"),
    "resultAnalyze/blend.py",
    "resultAnalyze/compare_rectools.py",
    "resultAnalyze/null_experiment.py",
    "resultAnalyze/groups.py",
    "resultAnalyze/benchmark_device.py",
    "utils/hub.py",
    "utils/memory_map.py",
]
SUBCOMMAND = {"utils/hub.py": ("export", "--output", "x")}
ELSEWHERE = {"resultAnalyze/rectools_models.py"}  # it needs RecTools, in an environment without this repo's packages


def test_every_script_is_listed_here():
    folders = (ROOT / "Models", ROOT / "utils", ROOT / "resultAnalyze")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    found = {str(path.relative_to(ROOT)) for path in files if "__main__" in path.read_text(encoding="utf-8")}
    assert found == {*SCRIPTS, *ELSEWHERE}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_help(run_script, script):
    shown = run_script(script, "--help").stdout
    assert f"python {script}" in shown
    if script in SUBCOMMAND:
        shown = run_script(script, *SUBCOMMAND[script], "--help").stdout
    assert "(default:" in shown


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_knows_wrong_usage(script, capsys):
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with pytest.raises(SystemExit) as exit_of_script:
        main_here(module, *SUBCOMMAND.get(script, ()), "--no-such-flag")
    assert exit_of_script.value.code == 2
    screen = capsys.readouterr()
    assert "Unrecognized options: --no-such-flag" in screen.err and screen.out == ""


def test_wrong_usage_is_exit_code_2(run_script):
    assert "Unrecognized options: --no-such-flag" in run_script("train.py", "--no-such-flag", code=2).stderr


def test_scripts_in_folders_can_be_started_themselves(tmp_path):
    """As in a shell in which the virtual environment is active."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words, environment = [ROOT / "utils/download.py", "--help"], os.environ | {"PATH": path}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "--name" in done.stdout, done.stderr
