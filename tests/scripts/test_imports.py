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


def test_a_model_loads_no_command_line_and_no_tables():
    """Beyond what torch itself loads."""
    more = loaded_by("import Models.Recommender") - loaded_by("import torch")
    assert "Models" in more and not more & {"pandas", "tyro", "argparse", "scipy", "sklearn", "transformers", "utils"}
