#!/usr/bin/env python3
"""Put the results under resultAnalyze/results/ into the README, each section between its two marks.

    python resultAnalyze/readme_results.py

So no figure of these sections is typed by hand; a test fails where README and result files disagree.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from utils import cli
from utils.cli import flag, shown
from utils.files import ROOT, UserError, read_json, write_aside

RESULTS = ROOT / "resultAnalyze" / "results"


@dataclass(frozen=True)
class Settings:
    readme: Path = flag(ROOT / "README.md", "the file to rewrite", metavar="FILE")


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    text = settings.readme.read_text(encoding="utf-8")
    with write_aside(settings.readme) as aside:
        aside.write_text(with_results(text), encoding="utf-8")
    print(f"{shown(settings.readme)} shows the results of {shown(RESULTS)}.")


def with_results(readme: str) -> str:
    """The README's text with its sections made anew from the result files.

    Raises:
        UserError: a section's marks are missing.
    """
    for name, make in SECTIONS.items():
        begin, end = f"<!-- {name}: made by resultAnalyze/readme_results.py -->", f"<!-- end of {name} -->"
        if begin not in readme or end not in readme:
            raise UserError(f"The README lacks the lines {begin} and {end}: put them where that section belongs.")
        before, after = readme.split(begin)[0], readme.split(end)[1]
        readme = f"{before}{begin}\n\n{make()}\n{end}{after}"
    return readme


def trainings(needed: str, columns: dict[str, str]) -> str:
    """A line for each model and protocol of the test_metrics.json files kept as results/trainings/*.json.

    `needed`: files without this metric are left out; `columns`: heads of the table's columns and the metrics in them.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for path in sorted((RESULTS / "trainings").glob("*.json")):
        m = read_json(path)
        m |= {f"sampled {name}": value for name, value in m.get("among_99_sampled", {}).items()}
        if needed not in m:
            continue
        rows = m["protocol"].split(" train/")[0].split(" test rows")[0].split(": each")[0]  # what tells protocols apart
        model = " ".join([m["preset"], *(f"`{flag_of(name, value)}`" for name, value in m["changed"].items())])
        groups.setdefault((model, m["dataset"], rows), []).append(m)
    heads = ["model", "data", "rows", "seeds", *columns, "training"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for names, runs in groups.items():
        errors = [mean_and_spread([m.get(error) for m in runs]) for error in columns.values()]
        effort = f"{mean(m['epochs'] for m in runs):.0f} epochs, {mean(m['wall_seconds'] for m in runs):.0f} s"
        lines.append(f"| {' | '.join([*names, str(len(runs)), *errors, effort])} |")
    return "\n".join(lines) + "\n"


def flag_of(name: str, value: Any) -> str:
    """A setting as it is typed."""
    words = value if isinstance(value, list) else [value]
    return " ".join(map(str, ["--" + name.replace("_", "-"), *words]))


def mean_and_spread(values: list[float | None]) -> str:
    """The mean and, of several values, half their range; nothing where they are missing."""
    if None in values:
        return ""
    spread = f" +- {(max(values) - min(values)) / 2:.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{spread}"


def tables(kind: str) -> str:
    """Every results/*/<kind>.md with the picture beside it; of an ablation's differences those on cold movies."""
    blocks = []
    for table in sorted(RESULTS.glob(f"*/{kind}.md")):
        text, place = table.read_text(encoding="utf-8"), table.relative_to(ROOT).as_posix()
        if kind == "ablation":
            lines = [line for line in text.splitlines() if not line.startswith("- ") or "cold-movie" in line]
            text = "\n".join([*lines, f"- On the other movies: [{place}]({place}).\n"])
        blocks.append(f"{text}\n![{table.parent.name}]({place.removesuffix('.md')}.png)\n")
    return "\n".join(blocks)


# A section of the README is a line here: its name in the marks, and what makes its text.
RATING = {"validation RMSE": "val_rmse", "test RMSE": "rmse", "test MAE": "mae"}
RANKING = {
    **{"validation NDCG@10": "val_ndcg@10", "test HR@10": "hr@10", "test NDCG@10": "ndcg@10"},
    **{"HR@10 among 99": "sampled hr@10", "NDCG@10 among 99": "sampled ndcg@10"},
}
SECTIONS = {
    "trainings": lambda: trainings("rmse", RATING),
    "rankings": lambda: trainings("ndcg@10", RANKING),
    "comparisons": lambda: tables("comparison"),
    "ablation": lambda: tables("ablation"),
}

if __name__ == "__main__":
    cli.run(main)
