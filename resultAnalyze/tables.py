#!/usr/bin/env python3
"""Put the results under resultAnalyze/results/ into docs/results.md, each section between its two markers.

    python resultAnalyze/tables.py

No figure in these sections is typed by hand; a test fails if the document and the result files disagree.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


import pandas as pd

from resultAnalyze import compare_rectools
from resultAnalyze.intervals import MIN_SEEDS
from resultAnalyze.kept_trainings import (
    RANKING,
    RATING,
    RESULTS,
    answers_table,
    blends_table,
    new_movies_table,
    part_differences,
    parts_table,
    requests_table,
    trainings_table,
)
from resultAnalyze.markdown import effect_in_words, markdown_table
from utils import cli
from utils.cli import display_path
from utils.config import FileName, parse
from utils.files import ROOT, UserError, write_text


@dataclass(frozen=True)
class Settings:
    document: FileName = ROOT / "docs" / "results.md"
    """the file to rewrite"""


def main() -> None:
    settings = parse(Settings, __doc__)
    text = settings.document.read_text(encoding="utf-8")
    write_text(settings.document, with_results(text))
    print(f"{display_path(settings.document)} shows the results of {display_path(RESULTS)}.")


def with_results(document: str) -> str:
    """The document's text with its sections regenerated from the result files.

    Raises:
        UserError: a section's markers are missing.
    """
    for name, make in SECTIONS.items():
        begin, end = f"<!-- {name}: made by resultAnalyze/tables.py -->", f"<!-- end of {name} -->"
        if begin not in document or end not in document:
            raise UserError(f"The document lacks the lines {begin} and {end}: put them where that section belongs.")
        before, after = document.split(begin)[0], document.split(end)[1]
        document = f"{before}{begin}\n\n{make()}\n{end}{after}"
    return document


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


def comparison_tables() -> str:
    """Every results/*/comparison.md, each followed by its picture."""
    texts = {table: table.read_text(encoding="utf-8") for table in sorted(RESULTS.glob("*/comparison.md"))}
    return "\n".join(f"{text}\n{picture_beside(table)}\n" for table, text in texts.items())


def picture_beside(table: Path) -> str:
    """The picture of the same name, as it is linked from docs/."""
    path = Path(os.path.relpath(table.with_suffix(".png"), ROOT / "docs")).as_posix()
    return f"![{table.parent.name}]({path})"


def ablation_tables() -> str:
    """For every results/*/effects.csv, what each input changes in the metrics of lists, and its picture.

    Bold where an effect is claimed.
    """
    blocks = []
    for whole in sorted(RESULTS.glob("*/ablation.md")):
        effects = pd.read_csv(whole.with_name("effects.csv"))
        effects["shown"] = [
            effect_in_words(e.change, e.low, e.high, mark="**" if is_claimed(e) else "") for e in effects.itertuples()
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


def worth_table() -> str:
    """What each part is worth on MovieLens 1M: the parts of the NCF, and the inputs of the ablation by movies.

    The change of RMSE and NDCG by adding the part; `none` if no effect is claimed, empty if it was not measured.
    """
    parts = part_differences().set_index(["preset", "rows", "without"])
    effects = pd.read_csv(RESULTS / "ml-1m-cold-movies-ncf-ranking" / "effects.csv")
    effects = effects[effects["metric"] == "ndcg@10"].set_index(["what", "movies"])
    rows = []
    for words, (part, what) in WORTH.items():
        row = {"part": words}
        for head, trained in WORTH_OF.items():
            if (*trained, part) in parts.index:
                found = parts.loc[(*trained, part)]
                is_shown = found.low * found.high > 0 and found.seeds >= MIN_SEEDS
                row[head] = effect_in_words(-found.change, -found.high, -found.low, 4) if is_shown else "none"
        for movies, head in {"warm": "known movies: NDCG@10", "cold": "new movies: NDCG@10"}.items():
            if what:
                found = effects.loc[(what, movies)]
                row[head] = effect_in_words(found.change, found.low, found.high) if is_claimed(found) else "none"
        rows.append(row)
    return markdown_table(pd.DataFrame(rows))


def is_claimed(effect: Any) -> bool:
    """Whether a row of effects.csv says that there is an effect."""
    return effect.verdict in ("better", "worse")


# Column headings, and the preset and rows of the training runs in results/parts/.
WORTH_OF = {"ratings: RMSE": ("ncf", "random 50/30/20"), "lists: NDCG@10": ("ncf-ranking", "random 80/0/20")}
# A part of a model: its names in results/parts/ and in effects.csv.
WORTH = {
    "BERT title vectors": ("block `title`", "title"),
    "the same, if only genres and year are known": (None, "title, with genres and year only"),
    "genres": (None, "genres"),
    "director, writer and cast": (None, "people"),
    "all metadata": ("the metadata", None),
    "all movie features": ("`features`", "all movie features"),
    "which other movies the user rated": ("`history`", None),
    "who else rated the movie": ("`audience`", None),
    "the user's gender, age and occupation": ("`demographics`", None),
    "time: sessions": ("`sessions`", None),
    "time: hour, weekday, since the first rating": ("`clock`", None),
    "the MLP": ("the MLP", None),
}
ABLATED = {  # column headings: which movies, by which metric
    "new movies: NDCG@10": ("cold", "ndcg@10"),
    "new movies: HR@10 in all lists": ("cold", "top-N hr"),
    "known movies: NDCG@10": ("warm", "ndcg@10"),
}
# Each section of the document is one line: its name in the markers, and the function that makes its text.
SECTIONS = {
    "answers": answers_table,
    "worth": worth_table,
    "ratings": lambda: trainings_table(RATING),
    "rankings": lambda: trainings_table(RANKING),
    "requests": requests_table,
    "blends": blends_table,
    "rectools": lambda: compare_rectools.markdown(pd.read_csv(RESULTS / "ml-1m-leave-one-out" / "rectools.csv")),
    "new movies": new_movies_table,
    "parts": parts_table,
    "groups": groups_table,
    "null": lambda: "\n".join(path.read_text(encoding="utf-8") for path in sorted((RESULTS / "null").glob("*.md"))),
    "comparisons": comparison_tables,
    "ablations": ablation_tables,
}

if __name__ == "__main__":
    cli.run(main)
