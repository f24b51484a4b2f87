#!/usr/bin/env python3
"""Put the comparisons under resultAnalyze/results/ into the README, between its two marks.

    python resultAnalyze/readme_results.py

So no figure of a comparison is typed by hand; a test fails where README and result files disagree.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from utils import cli
from utils.cli import flag, shown
from utils.files import ROOT, UserError, write_aside

BEGIN = "<!-- comparisons: made by resultAnalyze/readme_results.py -->"
END = "<!-- end of comparisons -->"
RESULTS = ROOT / "resultAnalyze" / "results"


@dataclass(frozen=True)
class Settings:
    readme: Path = flag(ROOT / "README.md", "the file to rewrite", metavar="FILE")


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    text = settings.readme.read_text(encoding="utf-8")
    with write_aside(settings.readme) as aside:
        aside.write_text(with_comparisons(text), encoding="utf-8")
    print(f"{shown(settings.readme)} shows the comparisons of {shown(RESULTS)}.")


def with_comparisons(readme: str) -> str:
    """The README's text with its comparisons made anew from the result files.

    Raises:
        UserError: the marks are missing.
    """
    if BEGIN not in readme or END not in readme:
        raise UserError(f"The README lacks the lines {BEGIN} and {END}: put them where the comparisons belong.")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    blocks = []
    for table in sorted(RESULTS.glob("*/comparison.md")):
        picture = (table.parent / "comparison.png").relative_to(ROOT).as_posix()
        blocks.append(f"{table.read_text(encoding='utf-8')}\n![{table.parent.name}]({picture})\n")
    return f"{before}{BEGIN}\n\n" + "\n".join(blocks) + f"\n{END}{after}"


if __name__ == "__main__":
    cli.run(main)
