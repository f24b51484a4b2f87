#!/usr/bin/env python3
"""Put the results under resultAnalyze/results/ into docs/results.md, each section between its two marks.

    python resultAnalyze/tables.py

So no figure of these sections is typed by hand; a test fails where the document and the result files disagree.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


import pandas as pd
from scipy.stats import t, ttest_ind

from Models.Recommender import NCFConfig
from resultAnalyze.intervals import LEAST_SEEDS
from utils import cli
from utils.cli import display_path
from utils.columns import KINDS, RESERVED
from utils.config import FileName, parse
from utils.files import ROOT, UserError, atomic_write, read_json

RESULTS = ROOT / "resultAnalyze" / "results"


@dataclass(frozen=True)
class Settings:
    document: FileName = ROOT / "docs" / "results.md"
    """the file to rewrite"""


def main() -> None:
    settings = parse(Settings, __doc__)
    text = settings.document.read_text(encoding="utf-8")
    with atomic_write(settings.document) as temporary:
        temporary.write_text(with_results(text), encoding="utf-8")
    print(f"{display_path(settings.document)} shows the results of {display_path(RESULTS)}.")


def with_results(document: str) -> str:
    """The document's text with its sections made anew from the result files.

    Raises:
        UserError: a section's marks are missing.
    """
    for name, make in SECTIONS.items():
        begin, end = f"<!-- {name}: made by resultAnalyze/tables.py -->", f"<!-- end of {name} -->"
        if begin not in document or end not in document:
            raise UserError(f"The document lacks the lines {begin} and {end}: put them where that section belongs.")
        before, after = document.split(begin)[0], document.split(end)[1]
        document = f"{before}{begin}\n\n{make()}\n{end}{after}"
    return document


# --- tables --------------------------------------------------------------------------------------


def markdown_table(table: pd.DataFrame) -> str:
    """A table of texts and numbers in markdown; missing values are empty."""
    lines = [table.columns.tolist(), ["---"] * table.shape[1], *table.fillna("").to_numpy().tolist()]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def mean_and_range(values: pd.Series) -> str:
    """The mean and, of different values, half their range; nothing where any is missing."""
    if values.isna().any():
        return ""
    spread = (values.max() - values.min()) / 2
    return f"{values.mean():.4f}" + (f" +- {spread:.4f}" if spread else "")


def trainings(folder: str = "trainings") -> pd.DataFrame:
    """The test_metrics.json files kept as results/<folder>/*.json, one row per run."""
    found = pd.DataFrame([read_json(path) for path in sorted((RESULTS / folder).glob("*.json"))])
    if "among_99_sampled" not in found:
        return found
    sampled = found["among_99_sampled"].map(lambda metrics: metrics if isinstance(metrics, dict) else {})
    for name in ("hr@10", "ndcg@10"):
        found[f"sampled {name}"] = sampled.map(lambda metrics, name=name: metrics.get(name))
    return found


def trainings_table(columns: dict[str, str]) -> str:
    """One row per configuration and protocol: means over seeds.

    columns: heads of the table's columns and the metrics in them; runs without the second metric are left out
    """
    runs = trainings().dropna(subset=list(columns.values())[1])
    rows = []
    for _, group in runs.groupby([runs[name].map(str) for name in CONFIGURATION]):
        first = group.iloc[0]
        row = {"data": first["dataset"], "rows": rows_in_words(first), "preset": preset_in_words(first)}
        row |= {"seeds": len(group)} | {head: mean_and_range(group[metric]) for head, metric in columns.items()}
        rows.append(row | {"training": f"{group['epochs'].mean():.0f} epochs, {group['wall_seconds'].mean():.0f} s"})
    return markdown_table(pd.DataFrame(rows))


def answers_table() -> str:
    """Of each question the best preset on MovieLens 1M, and how far the best of the other presets is behind.

    The intervals are those of Welch's t over the seeds, and do not count that the best was chosen.
    """
    runs, rows = trainings(), []
    runs = runs[runs["dataset"] == "ml-1m"].copy()
    runs["rows"] = runs.apply(rows_in_words, axis=1)
    new = runs["parts"].map(lambda parts: parts.get("new_movie", {}) if isinstance(parts, dict) else {})
    runs["new ndcg@10"] = new.map(lambda metrics: metrics.get("ndcg@10"))
    for question, (protocol, metric) in QUESTIONS.items():
        mine = runs[runs["rows"] == protocol].dropna(subset=metric)
        groups = {
            preset_in_words(one.iloc[0]): one for _, one in mine.groupby(mine["changes"].map(str) + mine["preset"])
        }
        order = sorted(groups, key=lambda name: groups[name][metric].mean(), reverse=metric != "rmse")
        best = groups[order[0]]
        others = [groups[name] for name in order if groups[name]["preset"].iloc[0] != best["preset"].iloc[0]]
        if not others:
            continue  # nothing to compare with
        other = others[0]
        change = f"{best[metric].mean() - other[metric].mean():+.4f}"
        if min(len(best), len(other)) < LEAST_SEEDS:
            change += f", fewer than {LEAST_SEEDS} seeds, no claim"
        else:
            low, high = ttest_ind(best[metric], other[metric], equal_var=False).confidence_interval()
            change += f" [{low:+.4f}, {high:+.4f}]"
        head = f"{metric.removeprefix('new ').upper()} {mean_and_range(best[metric])}, {len(best)} seeds"
        row = {"you want": question, "rows": protocol, "preset": order[0], "test": head}
        rows.append(row | {"and not": preset_in_words(other.iloc[0]), "difference": change})
    return markdown_table(pd.DataFrame(rows))


def requests_table() -> str:
    """The runs that were tested as of a request: as their protocol says, of requests in a later second, and untold."""
    runs = trainings().dropna(subset=["later_second"])
    rows = []
    for _, group in runs.groupby([runs[name].map(str) for name in CONFIGURATION]):
        parts = {"later second": group["later_second"]}
        is_told = isinstance(group.iloc[0].get("request_time_unknown"), dict)
        parts |= {"not told": group["request_time_unknown"]} if is_told else {}
        row = {"data": group.iloc[0]["dataset"], "preset": preset_in_words(group.iloc[0]), "seeds": len(group)}
        row |= {"time of the request": "known" if is_told else "not known"}
        row |= {name.upper(): mean_and_range(group[name]) for name in ("hr@10", "ndcg@10")}
        for words, part in parts.items():
            row |= {
                f"{words}: {n.upper()}": mean_and_range(part.map(lambda p, n=n: p[n])) for n in ("hr@10", "ndcg@10")
            }
        rows.append(row)
    return markdown_table(pd.DataFrame(rows))


def new_movies_table() -> str:
    """The runs that were tested on movies without ratings: how these are ranked, and what it costs the others."""
    runs = trainings()
    runs = runs[runs["parts"].map(lambda parts: isinstance(parts, dict) and "ndcg@10" in parts.get("new_movie", {}))]
    rows = []
    for _, group in runs.groupby([runs[name].map(str) for name in CONFIGURATION]):
        first = group.iloc[0]
        new, known = (pd.DataFrame(group["parts"].map(lambda p, n=name: p[n]).tolist()) for name in PARTS)
        row = {"data": first["dataset"], "rows": rows_in_words(first), "preset": preset_in_words(first)}
        row |= {"seeds": len(group), "new movies": int(new["movies"].iloc[0])}
        row |= {
            "NDCG@10 among new": mean_and_range(new["ndcg@10"]),
            "HR@10 of new in all": mean_and_range(new["hr@10_in_all"]),
        }
        cost = 100 * (known["ndcg@10_in_all"] / known["ndcg@10"] - 1)
        row |= {"NDCG@10 among known": mean_and_range(known["ndcg@10"]), "change in all": f"{cost.mean():+.1f} %"}
        rows.append(row | {"NDCG@10 in all": mean_and_range(group["ndcg@10"])})
    return markdown_table(pd.DataFrame(rows))


def parts_table() -> str:
    """What models lose without a part of theirs: results/parts/*.json beside the whole models of the same seeds.

    The intervals are those of Student's t over the differences of the seeds.
    """
    wholes, rows = trainings(), []
    parts = trainings("parts")
    parts["without"] = parts["changes"].map(left_out)
    for (preset, without, ratios), group in parts.groupby(["preset", "without", parts["ratios"].map(str)], sort=True):
        alike = (wholes["preset"] == preset) & (wholes["changes"] == {}) & (wholes["ratios"].map(str) == ratios)
        alike &= (wholes["dataset"] == group["dataset"].iloc[0]) & (wholes["split"] == group["split"].iloc[0])
        name = "rmse" if "rmse" in group and group["rmse"].notna().all() else "ndcg@10"
        whole = wholes[alike].set_index("seed")[name]
        difference = group.set_index("seed")[name] - whole
        half = t.ppf(0.975, len(difference) - 1) * difference.std() / len(difference) ** 0.5
        change = f"{difference.mean():+.4f} [{difference.mean() - half:+.4f}, {difference.mean() + half:+.4f}]"
        row = {"preset": preset, "rows": rows_in_words(group.iloc[0]), "without": without, "seeds": len(difference)}
        row |= {"test": f"{name.split('@')[0].upper()} {mean_and_range(group[name])}", "change": change}
        rows.append((preset, ratios, difference.abs().mean(), row))
    ordered = sorted(rows, key=lambda one: (*one[:2], -one[2]))
    return markdown_table(pd.DataFrame([row for *_, row in ordered]))


def groups_table() -> str:
    """The groups with the lowest and the highest figures, and the gap: results/groups/*.csv, made by groups.py."""
    rows = []
    for path in sorted((RESULTS / "groups").glob("*.csv")):
        table = pd.read_csv(path)
        for by, mine in table.groupby("by", sort=False):
            groups, (gap,) = mine[mine["units"] > 0], mine[mine["units"] == 0].itertuples()
            row = {"trainings": path.stem, "by": by, "metric": gap.metric}
            for words, which in {"lowest": groups["value"].idxmin(), "highest": groups["value"].idxmax()}.items():
                row[words] = f"{groups['value'][which]:.4f} ({groups['group'][which]})"
            rows.append(row | {"gap [95 % interval]": f"{gap.value:.4f} [{gap.low:.4f}, {gap.high:.4f}]"})
    return markdown_table(pd.DataFrame(rows))


def left_out(changes: dict[str, Any]) -> str:
    """The towers or blocks that a run is without, or its flag in words."""
    if "towers" in changes:
        return " ".join(f"`{tower}`" for tower in NCFConfig().towers if tower not in changes["towers"])
    if "blocks" in changes:
        blocks = {block for block in (*RESERVED, *KINDS) if block not in changes["blocks"]}
        return "the metadata" if blocks == set(KINDS) else " ".join(f"block `{block}`" for block in sorted(blocks))
    return " ".join("the MLP" if name == "hidden_dim" else f"`{as_flag(name, v)}`" for name, v in changes.items())


def rows_in_words(run: pd.Series) -> str:
    """The split and its ratios, of those that have some."""
    if run["split"] in ("given files", "leave-one-out"):
        return run["split"]
    return f"{run['split']} {'/'.join(f'{100 * ratio:g}' for ratio in run['ratios'])}"


def preset_in_words(run: pd.Series) -> str:
    """The preset, and the flags beside it."""
    return " ".join([run["preset"], *(f"`{as_flag(name, value)}`" for name, value in run["changes"].items())])


def as_flag(name: str, value: Any) -> str:
    """A setting as it is typed."""
    if isinstance(value, bool):
        return "--" + "no-" * (not value) + name.replace("_", "-")
    words = value if isinstance(value, list) else [value]
    return " ".join(map(str, ["--" + name.replace("_", "-"), *words]))


def comparison_tables() -> str:
    """Every results/*/comparison.md with the picture beside it."""
    texts = {table: table.read_text(encoding="utf-8") for table in sorted(RESULTS.glob("*/comparison.md"))}
    return "\n".join(f"{text}\n{picture_beside(table)}\n" for table, text in texts.items())


def picture_beside(table: Path) -> str:
    """The picture of the same name, as it is linked from docs/."""
    path = Path(os.path.relpath(table.with_suffix(".png"), ROOT / "docs")).as_posix()
    return f"![{table.parent.name}]({path})"


def ablation_tables() -> str:
    """Of every results/*/effects.csv, what each input changes by the metrics that lists are about; and its picture.

    Bold where an effect is claimed.
    """
    blocks = []
    for whole in sorted(RESULTS.glob("*/ablation.md")):
        effects = pd.read_csv(whole.with_name("effects.csv"))
        effects["shown"] = [
            f"{mark}{e.change:+.3f}{mark} [{e.low:+.3f}, {e.high:+.3f}]"
            for e in effects.itertuples()
            for mark in ["**" if e.verdict in ("better", "worse") else ""]
        ]
        columns = {
            name: effects[(effects["movies"] == movies) & (effects["metric"] == metric)].set_index("what")["shown"]
            for name, (movies, metric) in ABLATED.items()
        }
        table = pd.DataFrame(columns).loc[effects["what"].unique()].rename_axis("added").reset_index()
        link = Path(os.path.relpath(whole, ROOT / "docs")).as_posix()
        head = f"`{whole.parent.name}`, {effects['seeds'].min()} seeds; all figures: [ablation.md]({link})."
        blocks.append(f"{head}\n\n{markdown_table(table)}\n{picture_beside(whole)}\n")
    return "\n".join(blocks)


CONFIGURATION = ("dataset", "split", "ratios", "preset", "changes")  # runs that share these differ by their seed
# A section of the document is one line here: its name in the marks, and what makes its text.
RATING = {"validation RMSE": "val_rmse", "test RMSE": "rmse", "test MAE": "mae"}
RANKING = {
    **{"validation NDCG@10": "val_ndcg@10", "test NDCG@10": "ndcg@10", "test HR@10": "hr@10"},
    **{"NDCG@10 among 99": "sampled ndcg@10", "HR@10 among 99": "sampled hr@10"},
}
PARTS = ("new_movie", "known_movie")
ABLATED = {  # heads of a table, which movies and by which metric
    **{"new movies: NDCG@10": ("cold", "ndcg@10"), "new movies: HR@10 in all lists": ("cold", "top-N hr")},
    "known movies: NDCG@10": ("warm", "ndcg@10"),
}
QUESTIONS = {  # which rows, by which metric
    "predicted ratings": ("random 50/30/20", "rmse"),
    "lists of what a user would choose": ("random 80/0/20", "ndcg@10"),
    "the next movie": ("leave-one-out", "ndcg@10"),
    "movies that nobody has rated": ("cold-movies 75/10/15", "new ndcg@10"),
}
SECTIONS = {
    "answers": answers_table,
    "ratings": lambda: trainings_table(RATING),
    "rankings": lambda: trainings_table(RANKING),
    "requests": requests_table,
    "new movies": new_movies_table,
    "parts": parts_table,
    "groups": groups_table,
    "null": lambda: "\n".join(path.read_text(encoding="utf-8") for path in sorted((RESULTS / "null").glob("*.md"))),
    "comparisons": comparison_tables,
    "ablations": ablation_tables,
}

if __name__ == "__main__":
    cli.run(main)
