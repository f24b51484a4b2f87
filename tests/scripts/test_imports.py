"""What importing a model loads, in a process of its own."""

import json
import subprocess
import sys

from helpers import ROOT

LOADED = "import json, sys; {}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a statement loads."""
    code = [sys.executable, "-c", LOADED.format(statement)]
    return set(json.loads(subprocess.run(code, cwd=ROOT, capture_output=True, text=True, check=True).stdout))


def test_a_list_waits_for_no_package_that_only_a_training_needs():
    more = loaded_by("import generate_recommendation")
    assert "torch" in more and not more & {"sklearn", "transformers", "matplotlib"}


def test_a_model_loads_no_command_line_and_no_tables():
    """Beyond what torch itself loads."""
    more = loaded_by("import Models.Recommender") - loaded_by("import torch")
    assert "Models" in more and not more & {"pandas", "tyro", "argparse", "scipy", "sklearn", "transformers", "utils"}
