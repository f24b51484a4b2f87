"""Markdown tables and numbers as docs/ and the result files show them."""

import pandas as pd


def markdown_table(table: pd.DataFrame) -> str:
    """A table of texts and numbers in markdown; missing values are empty."""
    lines = [table.columns.tolist(), ["---"] * table.shape[1], *table.fillna("").to_numpy().tolist()]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def mean_and_range(values: pd.Series) -> str:
    """The mean and, if the values differ, half their range; empty if any is missing."""
    if values.isna().any():
        return ""
    spread = (values.max() - values.min()) / 2
    return f"{values.mean():.4f}" + (f" +- {spread:.4f}" if spread else "")


def effect_in_words(change: float, low: float, high: float, digits: int = 3, mark: str = "") -> str:
    """A change with its interval; `mark`, such as that of bold, encloses the change."""
    return f"{mark}{change:+.{digits}f}{mark} [{low:+.{digits}f}, {high:+.{digits}f}]"
