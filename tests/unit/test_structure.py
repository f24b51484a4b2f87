"""The structure of the repo: its fixed names, which file may import which, and what belongs in one place alone."""

import ast
from pathlib import Path

import pytest
from helpers import ROOT

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FOLDERS = (".", "Models", "Models/evaluation", "Models/inference", "Models/training", "utils", "resultAnalyze")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
MODEL_FILES = ("Recommender", "Original", "Content", "HistoryRecommender", "Sequential", "Autoencoder", "EASE")


def name_of(path: Path) -> str:
    """The name of a file as a module, such as Models.EASE."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {name_of(path): path for path in SOURCES}
ROOT_SCRIPTS = {name for name, path in MODULES.items() if path.parent == ROOT}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; for `from a import b`, both a and a.b."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def imports_of_ours(path: Path) -> set[str]:
    return imports_of(path) & set(MODULES)


def is_script(path: Path) -> bool:
    """Whether a file has an `if __name__ == "__main__"` block."""
    conditions = (ast.unparse(node.test) for node in tree_of(path).body if isinstance(node, ast.If))
    return any("__name__" in condition for condition in conditions)


def id_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_source = pytest.mark.parametrize("path", SOURCES, ids=id_of)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("dataset/", "Models/", "utils/", "resultAnalyze/", "tests/"),
        *("train.py", "main.py", "generate_recommendation.py", "requirements.txt", "README.md"),
        *("Models/Dataset.py", "Models/dataLoader.py", "Models/Recommender.py"),
        *("utils/BERT.py", "resultAnalyze/loss_ananlyze.py"),
    ],
)
def test_a_fixed_name_is_there(name):
    """With its exact case, even on case-insensitive file systems."""
    path = ROOT / name
    assert path.name in {one.name for one in path.parent.iterdir()}
    assert path.is_dir() == name.endswith("/")


def test_models_stay_few_files():
    assert len(list((ROOT / "Models").glob("*.py"))) <= 17


# --- imports -------------------------------------------------------------------------------------


@every_source
def test_imports_point_one_way(path):
    """utils <- Models <- Models/evaluation <- Models/training, Models/inference <- resultAnalyze and the root scripts.

    Of the root scripts, only train.py is imported, to train in this process.
    """
    ours = imports_of_ours(path)
    folder = path.relative_to(ROOT).parts[0]
    order = [ROOT / "Models", ROOT / "Models" / "evaluation"]
    if path.parent in order:
        later = ("Models.evaluation", "Models.training", "Models.inference")[order.index(path.parent) :]
        assert not any(name.startswith(later) for name in ours)
    if path.parent in (ROOT / "Models" / "training", ROOT / "Models" / "inference"):
        other = {"training": "Models.inference", "inference": "Models.training"}[path.parent.name]
        assert not any(name.startswith(other) for name in ours)
    if folder == "utils":
        assert not any(name.startswith(("Models", "resultAnalyze")) for name in ours)
    if folder in ("utils", "Models"):
        assert not any(name.startswith("resultAnalyze") for name in ours) and not ours & ROOT_SCRIPTS
    if folder == "resultAnalyze":
        assert ours & ROOT_SCRIPTS <= {"train"}


def test_imports_make_no_circle():
    graph = {name: imports_of_ours(path) for name, path in MODULES.items()}
    while graph:
        leaves = {name for name, ours in graph.items() if not ours & set(graph)}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: ours for name, ours in graph.items() if name not in leaves}


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_model_imports_only_what_models_share(name):
    allowed = {"Models.Dataset", "Models.inputs", "Models.layers", "Models.sequences", "Models.EASE"}
    assert imports_of_ours(ROOT / "Models" / f"{name}.py") <= allowed


def test_model_inputs_import_nothing_of_ours():
    assert not imports_of_ours(ROOT / "Models" / "inputs.py")


# --- one place each ------------------------------------------------------------------------------


@every_source
def test_no_library_file_starts_a_script_of_ours(path):
    """A file without a `__main__` block is a library.

    utils/mirrors.py starts pip, which is not ours, and resultAnalyze/experiment.py calls functions in processes.
    """
    if not is_script(path) and name_of(path) not in ("utils.mirrors", "resultAnalyze.experiment"):
        starters = ("subprocess", "multiprocessing", "os.system", "os.spawn", "os.exec", "os.fork", "os.popen", "runpy")
        text = path.read_text(encoding="utf-8")
        assert "subprocess" not in imports_of(path)
        assert not [word for word in starters if word in text]


def test_mirrors_start_pip_alone():
    path = ROOT / "utils" / "mirrors.py"
    commands = [node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)]
    assert "pip" in commands and not any(str(value).endswith(".py") for value in commands)


def test_the_training_step_is_in_train_py():
    assert "loss.backward()" in (ROOT / "train.py").read_text(encoding="utf-8")
    for path in (ROOT / "Models").rglob("*.py"):
        calls = [ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        assert not [call for call in calls if call.endswith("loss.backward")], path


@every_source
def test_no_size_of_a_data_set_or_encoder_is_in_the_code(path):
    numbers = {node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)}
    assert not numbers & {768, 384, 6040, 3883, 3952, 3706, 18}


@every_source
def test_importing_a_file_does_no_work(path):
    """At its top level, a file has only definitions, constants and, for scripts in a folder, the import path."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If)
    for node in tree_of(path).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert is_text or isinstance(node, kinds), ast.unparse(node)
        assert not isinstance(node, ast.If) or "__name__" in ast.unparse(node.test)


# --- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TESTS, ids=id_of)
def test_no_test_imports_another_test(path):
    statements = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Import | ast.ImportFrom)]
    of_names = {name.name for node in statements if isinstance(node, ast.Import) for name in node.names}
    modules = of_names | {node.module for node in statements if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[-1] for name in modules} & {other.stem for other in TESTS}


def test_test_files_have_names_of_their_own():
    assert len({path.name for path in TESTS}) == len(TESTS)


def test_unit_tests_start_no_processes():
    for path in (ROOT / "tests" / "unit").rglob("*.py"):
        assert "subprocess" not in imports_of(path), path
