"""The model card of a shared model: what was trained on what, how good it is, how to use it, its limits."""

import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from utils import runs
from utils.download import ARCHIVES
from utils.files import read_json

MOVIELENS_TERMS = """MovieLens data is for research: no commercial use and no redistribution without permission from
GroupLens. config.json holds its list of movies, so ask before you share this folder. Cite
F. M. Harper and J. A. Konstan. 2015. *The MovieLens Datasets: History and Context.* ACM TiiS 5, 4, Article 19."""
OTHER_TERMS = "The owner of the data decides: write here, and at the top of this file, what may be done with the model."
LINK = {"license_name": "movielens", "license_link": "https://grouplens.org/datasets/movielens/"}
FEW = 5  # ratings, each by a different person
METRICS = ("hr@10", "ndcg@10", "recall@10", "mrr@10")
SHARES = {"coverage": "of the catalogue is in some list", "overlap": "of the movies in two users' lists are the same"}


def model_card(run: Path, content: dict[str, Any]) -> str:
    """The card of a run, whose checkpoint without users has this content."""
    record, test = training_and_test(run)
    what = f"`{record['preset']}`, trained on {record['train_rows']:,} ratings of {record['dataset']}"
    parts = {
        "": [f"{what}. It predicts which movies a person would choose, from those that they liked or rated."],
        "How to use it": how_to_use(content),
        "How good it is": how_good(record, test),
        "How it was trained": how_trained(run, content, record),
        "For whom": for_whom(run),
        "Limits": limits(content, test),
        "Licence": [MOVIELENS_TERMS if record["dataset"] in ARCHIVES else OTHER_TERMS],
    }
    lines = [f"---\n{front_matter(record, test)}\n---\n", f"# {record['preset']} on {record['dataset']}"]
    for title, words in parts.items():
        lines += [f"\n## {title}\n" if title else "", *words] if words else []
    return "\n".join(lines) + "\n"


def training_and_test(run: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What was trained, and its test: its own or, after training on all ratings, that of the run it was made from.

    The test is None if that run no longer exists.
    """
    if (run / runs.TEST_METRICS).is_file():
        return (test := read_json(run / runs.TEST_METRICS)), test
    record = read_json(run / runs.FINAL)
    tested = Path(record["epochs_chosen_by"]) / runs.TEST_METRICS
    return record, read_json(tested) if tested.is_file() else None


def front_matter(record: dict[str, Any], test: dict[str, Any] | None) -> str:
    """What the hub reads, in YAML; figures only if they are those of these weights."""
    from huggingface_hub import EvalResult, ModelCardData

    name, data = f"{record['preset']} on {record['dataset']}", record["dataset"]
    results = {
        metric: EvalResult("recommendation", data, data, metric, round(test[metric], 4))
        for metric in METRICS
        if test is record and metric in test
    }
    more = LINK if data in ARCHIVES else {}
    tags = ["recommendation", "pytorch"]
    card = ModelCardData(
        model_name=name, license="other", tags=tags, eval_results=list(results.values()) or None, **more
    )
    return card.to_yaml()


def how_to_use(content: dict[str, Any]) -> list[str]:
    ids, count = content["ids"], content["features"]["count"]
    popular = [str(ids["movie_ids"][k]) for k in count.argsort(descending=True, stable=True).tolist()]
    liked = shlex.quote(",".join([movie for movie in popular if "," not in movie][:3]))
    return [
        "Use it with the code that trained it, which executes nothing that it loads:\n",
        "```bash",
        f"python generate_recommendation.py --run hf:OWNER/NAME --liked {liked}",
        "python generate_recommendation.py --run hf:OWNER/NAME --ratings mine.csv      # movieId,rating,timestamp",
        "```\n",
        "`--run` also takes a folder with these three files. It holds no users; people bring their own histories.",
    ]


def how_good(record: dict[str, Any], test: dict[str, Any] | None) -> list[str]:
    if test is None:
        return ["It was trained on all ratings; the run that was tested with this configuration no longer exists."]
    lines = []
    if test is not record:
        lines.append("It was trained on all ratings. The figures are for the same configuration, trained on a part:\n")
    lines += [f"Protocol: {test['protocol']}. One seed, {test['users']:,} users.\n"]
    lines += ["| metric | model | most popular movies |", "| --- | --- | --- |"]
    popular = test["most_popular"]
    lines += [f"| {name} | {test[name]:.4f} | {popular[name]:.4f} |" for name in METRICS if name in test]
    return lines


def for_whom(run: Path) -> list[str]:
    """The widest gaps between groups of users and of movies, if resultAnalyze/groups.py has measured them."""
    if not (run / runs.GROUPS).is_file():
        return []
    table = pd.read_csv(run / runs.GROUPS)
    gaps = table[table["units"] == 0]
    return [
        f"- by {by}: {metric} of {group}, the widest gap of all groups, {value:.4f} [{low:.4f}, {high:.4f}]"
        for by, group, metric, value, low, high in gaps[["by", "group", "metric", "value", "low", "high"]].to_numpy()
    ]


def how_trained(run: Path, content: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """The configuration, without the paths of files on somebody's machine."""
    config = read_json(run / "config.json")
    changes = [f"`{name}` {value}" for name, value in record["changes"].items()]
    blocks = [block["name"] for block in (*content["stats"]["blocks"], *content["stats"]["names"])]
    titles = f" (titles encoded by {public_name(config['features']['encoder'])})" if "title" in blocks else ""
    lines = [
        f"- preset `{record['preset']}`, {', '.join(changes) or 'unchanged'}; {record['epochs']} epochs, seed "
        f"{record['seed']}",
        f"- data: {record['dataset']}, split {record['split']}, {record['train_rows']:,} training ratings",
        f"- movie features: {', '.join(blocks) or 'none'}{titles}",
    ]
    went_on = config["config"]["run"]["continue_from"] is not None
    return lines + ["- training continued from an earlier run, whose epochs are not counted here"] * went_on


def public_name(encoder: str) -> str:
    """An encoder's name on the hub, or that of its folder, without the path to it."""
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", encoder) and not Path(encoder).is_dir()
    return encoder if is_name else re.split(r"[/\\]", encoder.rstrip("/\\"))[-1]


def limits(content: dict[str, Any], test: dict[str, Any] | None) -> list[str]:
    ids, count = content["ids"], content["features"]["count"]
    lines = [
        f"- It knows {len(ids['movie_ids']):,} movies, {int((count > 0).sum()):,} of them with ratings.",
        "- It learned what users of this data chose, with the tastes of their time; it knows nothing about others.",
        "- Figures on past ratings do not say how much people will like what they are shown.",
    ]
    if few := int(((count > 0) & (count < FEW)).sum()):
        lines.append(
            f"- {few:,} movies have fewer than {FEW} ratings: what was learned about them reflects very few people."
        )
    if test is not None:
        lines += [f"- In the test, {test[name]:.0%} {words}." for name, words in SHARES.items() if name in test]
    return lines
