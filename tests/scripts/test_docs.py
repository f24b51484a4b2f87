"""The documents are right: figures equal the result files, links lead somewhere, the worked extension works."""

import ast
import csv
import json
import re
import statistics
from pathlib import Path

import pytest
from helpers import ROOT, copy_of_repo, recommend_here

from resultAnalyze.tables import RESULTS, with_results
from utils.files import UserError

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 180 and len(README.encode()) <= 11 * 1024
    tables = [line for line in README.splitlines() if line.startswith("|")]
    assert max(line.count("|") - 1 for line in tables) <= 6


def test_the_results_document_shows_the_result_files():
    document = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert with_results(document) == document
    for table in RESULTS.glob("*/comparison.md"):
        assert table.read_text(encoding="utf-8") in document
    for changed in ("| most popular |", "| cold-movies 75/10/15 | content |", "| ml-1m | random 50/30/20 | ncf |"):
        assert changed in document and with_results(document.replace(changed, changed.upper())) == document
    with pytest.raises(UserError, match="lacks the lines"):
        with_results(document.replace("<!-- end of ablations -->", ""))


@pytest.mark.parametrize(
    ("protocol", "preset", "runs", "metric"),
    [
        ("1M, random 50/30/20, RMSE", "ncf", "ncf-ml-1m-random-50-seed-?", "rmse"),
        ("1M, random 90/10, RMSE", "ncf", "ncf-ml-1m-random-90-seed-?", "rmse"),
        ("100K, fold u1, RMSE", "ncf", "ncf-ml-100k-u1-seed-?", "rmse"),
        ("1M, random 80/20, NDCG@10", "ncf-ranking", "ncf-ranking-ml-1m-random-80-seed-?", "ndcg@10"),
        ("1M, random 50/30/20, RMSE", "history", "history-ml-1m-random-50-seed-?", "rmse"),
        ("100K, fold u1, RMSE", "history", "history-ml-100k-u1-seed-?", "rmse"),
        ("1M, random 80/20, NDCG@10", "autoencoder", "autoencoder-ml-1m-random-80-seed-?", "ndcg@10"),
        ("1M, leave-one-out, NDCG@10", "transformer", "transformer-ml-1m-leave-one-out-seed-?", "ndcg@10"),
    ],
)
def test_the_figures_of_the_readme_are_those_of_the_runs(protocol, preset, runs, metric):
    values = [json.loads(path.read_text())[metric] for path in (RESULTS / "trainings").glob(f"{runs}.json")]
    figure = f"{statistics.mean(values):.4f}".lstrip("0")
    assert f"| {protocol} | `{preset}` | {figure} | {len(values)} |" in README


def test_the_figures_of_new_movies_in_the_readme_are_those_of_the_runs():
    figures = []
    for name in ("content-ml-1m-cold-movies", "ncf-ranking-ml-1m-cold-movies-id-dropout"):
        runs = [json.loads(path.read_text()) for path in (RESULTS / "trainings").glob(f"{name}-seed-?.json")]
        figures.append(f"{statistics.mean(run['parts']['new_movie']['ndcg@10'] for run in runs):.4f}".lstrip("0"))
        assert len(runs) == 3
    row = "| 1M, cold movies, NDCG@10 among these | `content` | {} | 3 | `ncf-ranking --id-dropout 0.5` {},"
    assert row.format(*figures) in README


def test_the_figure_of_the_blend_is_that_of_its_files():
    for rows, words in {
        "random-80": "blended with `ncf-ranking` {};",
        "time-80": "`transformer`, blended | {} | 3 |",
    }.items():
        blends = sorted((RESULTS / "blends").glob(f"ml-1m-{rows}-seed-?.json"))
        values = [json.loads(path.read_text())["ndcg@10"] for path in blends]
        assert len(values) == 3 and words.format(f"{statistics.mean(values):.4f}".lstrip("0")) in README


def test_the_baselines_of_the_temporal_split_in_the_readme_are_those_of_their_table():
    with (RESULTS / "ml-1m-time/comparison.csv").open(encoding="utf-8") as file:
        figures = {row["model"]: f"{float(row['ndcg@10']):.3f}".lstrip("0") for row in csv.DictReader(file)}
    one, other = (figures[name] for name in ("EASE, weighted by rating", "EASE, weighted, and the last week"))
    assert f"| EASE {one}, with the last week's popularity {other} |" in README


def test_the_figure_of_the_original_configuration_is_that_of_its_runs():
    runs = sorted((RESULTS / "trainings").glob("original-ml-1m-random-50-seed-?.json"))
    values = [json.loads(path.read_text())["rmse"] for path in runs]
    assert len(values) == 3 and f"`original` {statistics.mean(values):.4f}".replace("0.", ".") in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8"))
    for name, heading in links:
        target = document.parent / name if name else document
        assert target.exists(), name
        assert not heading or heading in anchors(target), f"{name}#{heading}"


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_script_that_is_named_is_there(document):
    named = set(re.findall(r"(?:python|--) ((?:\w+/)?\w+\.py)", document.read_text(encoding="utf-8")))
    assert all((ROOT / script).is_file() for script in named)


def test_the_worked_extension_works(run_script, places, tmp_path):
    """Word for word: one new file and the entry in configs.py, in a copy of the sources."""
    root = copy_of_repo(tmp_path / "clone")
    document = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    model, preset, baseline, line = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    (root / "Models/MovieBias.py").write_text(model)
    add_to_configs(root / "Models/configs.py", preset)
    run = tmp_path / "run"
    asked = ("--preset", "movie-bias", "--l2", "0.1", "--run", run)
    assert "Best epoch" in run_script("train.py", *places, *asked, root=root).stdout
    listed = run_script("generate_recommendation.py", "--run", run, root=root).stdout
    assert listed.splitlines()[-1].startswith("Top 10 recommended movie IDs for user 1: [")
    baselines = root / "resultAnalyze/baselines.py"
    text, table = baselines.read_text(encoding="utf-8"), "BASELINES: dict[str, Baseline] = {\n"
    assert text.count(table) == 1
    baselines.write_text(text.replace(table, f"{baseline}\n\n{table}{line}"), encoding="utf-8")
    compared = ("--models", "movie-bias", "random order", "EASE", "--seeds", 0, "--ratios", 0.5, 0.3, 0.2)
    run_script("resultAnalyze/compare_baselines.py", *places, *compared, "--output", tmp_path / "out", root=root)
    found = (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert "| movie-bias | 1 |" in found and "| random order | 1 |" in found


def test_the_lines_in_python_work(tiny_run, capsys):
    """They run as written, with an existing run and existing ids."""
    document = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    for written, here in (("runs/RUN", str(tiny_run)), ("index(42)", "index(4)"), ("index(260)", "index(2)")):
        assert written in lines
        lines = lines.replace(written, here)
    exec(lines, {})
    said = capsys.readouterr().out
    listed = recommend_here("--run", tiny_run, "--user", 4, "--format", "json")
    for movie in json.loads(listed)["movies"]:
        assert movie["title"] in said
    assert "(27, " in said


def add_to_configs(configs: Path, preset: str) -> None:
    """Add what the document describes in words: the import, the line of MODELS and the preset."""
    text = configs.read_text(encoding="utf-8")
    imports, models, end = "from Models.Recommender import", "    NCFConfig: Recommender,\n", "    )\n}\nDEFAULT_PRESET"
    assert all(words in text for words in (imports, models, end))
    text = text.replace(imports, f"from Models.MovieBias import MovieBias, MovieBiasConfig\n{imports}", 1)
    text = text.replace(models, f"{models}    MovieBiasConfig: MovieBias,\n", 1)
    text = text.replace(end, f"{preset.strip()},\n{end}", 1)
    configs.write_text(text, encoding="utf-8")


def test_every_file_is_described_by_its_own_first_line():
    document = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    for folder in (".", "Models", "Models/evaluation", "Models/inference", "Models/training", "utils", "resultAnalyze"):
        for path in (ROOT / folder).glob("*.py"):
            first = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
            assert f"| `{path.relative_to(ROOT).as_posix()}` | {first} |" in document
