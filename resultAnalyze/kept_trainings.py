"""Tables of the training runs whose test records are in resultAnalyze/results/trainings/*.json and parts/*.json."""

from itertools import groupby
from typing import Any

import pandas as pd
from scipy.stats import t, ttest_ind

from Models.Recommender import NCFConfig
from resultAnalyze.intervals import MIN_SEEDS
from resultAnalyze.markdown import effect_in_words, markdown_table, mean_and_range
from utils.columns import KINDS, RESERVED
from utils.config import as_typed
from utils.files import ROOT, read_json

RESULTS = ROOT / "resultAnalyze" / "results"
# Runs that share these differ only in their seed.
CONFIGURATION = ("dataset", "split", "ratios", "relevance_threshold", "preset", "changes")
RATING = {"validation RMSE": "val_rmse", "test RMSE": "rmse", "test MAE": "mae"}
RANKING = {
    "validation NDCG@10": "val_ndcg@10",
    "test NDCG@10": "ndcg@10",
    "test HR@10": "hr@10",
    "NDCG@10 among 99": "sampled ndcg@10",
    "HR@10 among 99": "sampled hr@10",
}
PARTS = ("new_movie", "known_movie")
QUESTIONS = {  # which rows, by which metric
    "predicted ratings": ("random 50/30/20", "rmse"),
    "predicted ratings of a later time": ("time 50/30/20", "rmse"),
    "lists of what a user would choose": ("random 80/0/20", "ndcg@10"),
    "lists of all that a user rates later": ("time 80/10/10", "ndcg@10"),
    "the next movie": ("leave-one-out", "ndcg@10"),
    "movies that nobody has rated": ("cold-movies 75/10/15", "new ndcg@10"),
}


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

    columns: the table's column headings and their metrics; runs without the second metric are left out
    """
    runs = trainings().dropna(subset=list(columns.values())[1])
    rows = []
    for _, group in runs.groupby([runs[name].map(str) for name in CONFIGURATION]):
        first = group.iloc[0]
        row = {"data": first["dataset"], "rows": rows_in_words(first), "preset": preset_in_words(first)}
        row |= {"seeds": len(group)} | {head: mean_and_range(group[metric]) for head, metric in columns.items()}
        rows.append(row | {"epochs": round(group["epochs"].mean())})
    return markdown_table(pd.DataFrame(rows))


def answers_table() -> str:
    """For each question, the best preset on MovieLens 1M, and how far the best of the other presets is behind.

    A preset has the settings that validation prefers or, without validation rows, its own. The intervals are those of
    Welch's t over the seeds, not adjusted for having chosen the best.
    """
    runs, rows = trainings(), []
    runs = runs[runs["dataset"] == "ml-1m"].copy()
    runs["rows"] = runs.apply(rows_in_words, axis=1)
    new = runs["parts"].map(lambda parts: parts.get("new_movie", {}) if isinstance(parts, dict) else {})
    runs["new ndcg@10"] = new.map(lambda metrics: metrics.get("ndcg@10"))
    for question, (protocol, metric) in QUESTIONS.items():
        mine = runs[runs["rows"] == protocol].dropna(subset=metric)
        presets = [preferred(one, metric) for _, one in mine.groupby("preset")]
        presets.sort(key=lambda one: one[metric].mean(), reverse=metric != "rmse")
        if len(presets) < 2:
            continue  # nothing to compare with
        best, other = presets[:2]
        change = best[metric].mean() - other[metric].mean()
        if min(len(best), len(other)) < MIN_SEEDS:
            words = f"{change:+.4f}, fewer than {MIN_SEEDS} seeds, no claim"
        else:
            interval = ttest_ind(best[metric], other[metric], equal_var=False).confidence_interval()
            words = effect_in_words(change, *interval, 4)
        head = f"{metric.removeprefix('new ').upper()} {mean_and_range(best[metric])}, {len(best)} seeds"
        row = {"question": question, "rows": protocol, "preset": preset_in_words(best.iloc[0]), "test": head}
        rows.append(row | {"next best": preset_in_words(other.iloc[0]), "difference": words})
    return markdown_table(pd.DataFrame(rows))


def preferred(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A preset's runs with the settings that are best on validation rows or, without any, that are its defaults."""
    settings = runs["changes"].map(str)
    validation = runs[f"val_{metric.removeprefix('new ')}"].groupby(settings).mean().dropna()
    if validation.empty:
        return runs[settings == settings[settings.map(len).idxmin()]]
    return runs[settings == (validation.idxmin() if metric == "rmse" else validation.idxmax())]


def requests_table() -> str:
    """The runs tested with a request time: by their protocol, for requests in a later second, and with it withheld."""
    runs = trainings().dropna(subset=["later_second"])
    rows = []
    for _, group in runs.groupby([runs[name].map(str) for name in CONFIGURATION]):
        first, parts = group.iloc[0], {"asked later": group["later_second"]}
        is_told = isinstance(first.get("request_time_unknown"), dict)
        parts |= {"time withheld": group["request_time_unknown"]} if is_told else {}
        row = {"data": first["dataset"], "rows": rows_in_words(first), "preset": preset_in_words(first)}
        row |= {"seeds": len(group), "time of the request": "known" if is_told else "not known"}
        row |= {name.upper(): mean_and_range(group[name]) for name in ("hr@10", "ndcg@10")}
        for words, part in parts.items():
            row |= {
                f"{words}: {n.upper()}": mean_and_range(part.map(lambda p, n=n: p[n])) for n in ("hr@10", "ndcg@10")
            }
        rows.append(row)
    return markdown_table(pd.DataFrame(rows))


def new_movies_table() -> str:
    """The runs tested on movies without ratings: how well these are ranked, and what that costs the others."""
    runs = trainings()
    runs = runs[
        runs["parts"].map(lambda parts: isinstance(parts, dict) and all("ndcg@10" in parts.get(n, {}) for n in PARTS))
    ]
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


def blends_table() -> str:
    """Blends: results/blends/*.json, made by blend.py, of runs whose names end in their seed."""
    rows = []
    found = [read_json(path) for path in sorted((RESULTS / "blends").glob("*.json"))]
    for together, several in groupby(found, key=lambda blend: [without_seed(run) for run in blend["weights"]]):
        blends = pd.DataFrame(several)
        first = blends.iloc[0]
        words = next(iter(first["protocols"].values())).split(" train/validation/test")[0]
        row = {"data": first["dataset"], "rows": words, "together": ", ".join(f"`{run}`" for run in together)}
        for name in ("weights", "of_each"):
            of_runs = pd.DataFrame([list(values.values()) for values in blends[name]])
            row[name] = ", ".join(f"{value:.3f}" for value in of_runs.mean())
        row |= {"seeds": len(blends), "NDCG@10": mean_and_range(blends["ndcg@10"])}
        rows.append(row | {"HR@10": mean_and_range(blends["hr@10"])})
    return markdown_table(pd.DataFrame(rows).rename(columns={"of_each": "NDCG@10 of each"}))


def part_differences() -> pd.DataFrame:
    """What models lose without one of their parts: results/parts/*.json against the whole models of the same seeds.

    Returns:
        for each preset and part: the metric without it, and the change from leaving it out, with the interval of
        Student's t over the differences of the seeds; the largest change of each preset comes first
    """
    wholes, rows = trainings(), []
    parts = trainings("parts")
    parts["without"] = parts["changes"].map(left_out)
    by = ["preset", "without", parts["ratios"].map(str), "dataset", "split"]
    for (preset, without, ratios, dataset, split), group in parts.groupby(by, sort=True):
        alike = (wholes["preset"] == preset) & (wholes["changes"] == {}) & (wholes["ratios"].map(str) == ratios)
        alike &= (wholes["dataset"] == dataset) & (wholes["split"] == split)
        name = "rmse" if "rmse" in group and group["rmse"].notna().all() else "ndcg@10"
        change = (group.set_index("seed")[name] - wholes[alike].set_index("seed")[name]).dropna()  # seeds of both
        half = t.ppf(0.975, len(change) - 1) * change.std() / len(change) ** 0.5
        row = {"preset": preset, "rows": rows_in_words(group.iloc[0]), "without": without, "seeds": len(change)}
        row |= {"test": f"{name.split('@')[0].upper()} {mean_and_range(group[name])}"}
        rows.append(row | {"change": change.mean(), "low": change.mean() - half, "high": change.mean() + half})
    return pd.DataFrame(sorted(rows, key=lambda row: (row["preset"], row["rows"], -abs(row["change"]))))


def parts_table() -> str:
    found = part_differences()
    intervals = [effect_in_words(part.change, part.low, part.high, 4) for part in found.itertuples()]
    return markdown_table(found.drop(columns=["low", "high"]).assign(change=intervals))


# --- runs in words -------------------------------------------------------------------------------


def without_seed(run: str) -> str:
    """The part of a run's name that is the same for all seeds."""
    return run.rsplit("-seed-", 1)[0]


def left_out(changes: dict[str, Any]) -> str:
    """The towers or blocks that a run leaves out, or its flags in words."""
    if "towers" in changes:
        return " ".join(f"`{tower}`" for tower in NCFConfig().towers if tower not in changes["towers"])
    if "blocks" in changes:
        blocks = {block for block in (*RESERVED, *KINDS) if block not in changes["blocks"]}
        return "the metadata" if blocks == set(KINDS) else " ".join(f"block `{block}`" for block in sorted(blocks))
    return " ".join("the MLP" if name == "hidden_dim" else as_code(name, value) for name, value in changes.items())


def rows_in_words(run: pd.Series) -> str:
    """The split and, if it has them, its ratios."""
    if run["split"] in ("given files", "leave-one-out"):
        return run["split"]
    return f"{run['split']} {'/'.join(f'{100 * ratio:g}' for ratio in run['ratios'])}"


def preset_in_words(run: pd.Series) -> str:
    """The preset and its additional flags."""
    return " ".join([run["preset"], *(as_code(name, value) for name, value in run["changes"].items())])


def as_code(name: str, value: Any) -> str:
    return f"`{' '.join(as_typed(name, value))}`"
