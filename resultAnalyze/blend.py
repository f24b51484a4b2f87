#!/usr/bin/env python3
"""Rank with several finished runs together: a weighted sum of their scores, with weights chosen on validation rows.

    python resultAnalyze/blend.py --runs runs/autoencoder runs/ncf-ranking runs/transformer
    python resultAnalyze/blend.py --runs runs/a runs/b --weights 1.0 0.7       # for runs without validation rows

All runs must rank, and must have been trained and tested on the same rows. The weights maximise the likelihood of the
relevant validation ratings, as in McFadden's conditional logit (1974): the probability of a movie is the softmax of the
weighted sum over all movies that the user has not rated. The test is the same as that of each run: whole catalogue,
known movies left out, ties against the model.

Writes blend.json, the weights and the metrics, and test_topn.csv into --output.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
import tyro
from torch import Tensor

from Models.checkpoint import load_model
from Models.configs import saved_config
from Models.Dataset import ScoreFn
from Models.evaluation.fitted import as_fitted
from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import split_fingerprint
from utils import cli
from utils.cli import display_path
from utils.config import OptionalFolder, parse
from utils.files import RUNS, UserError, read_json, write_json, write_table
from utils.metrics import mean_metrics
from utils.runs import TEST_METRICS, finished_run

MAX_SCORES = 500_000_000  # validated at once: 2 GB, and several times that while the weights are fitted
SAME = ("dataset", "split_sha256", "relevance_threshold")  # in the test records of all runs


@dataclass(frozen=True)
class Settings:
    runs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR DIR ...", help_behavior_hint="")] = ()
    """folders of two or more finished training runs that rank"""
    weights: Annotated[
        tuple[float, ...], tyro.conf.arg(metavar="W W ...", help_behavior_hint="(default: chosen by validation)")
    ] = ()
    """weights found on other rows"""
    output: OptionalFolder = None
    """folder (default: runs/blend-<data>)"""


def main() -> None:
    settings = parse(Settings, __doc__)
    runs = [finished_run(run, tested=True) for run in settings.runs]
    records = checked(runs, settings.weights)
    data, split = saved_config(runs[0]).data.load()
    if split_fingerprint(data, split) != records[0]["split_sha256"]:
        raise UserError(f"The ratings are not those that {runs[0]} was trained and tested on: put the old files back.")
    evaluator = RankingEvaluator(data, split, records[0]["relevance_threshold"])
    models = [load_model(run / "best.pt", torch.device("cpu")).model for run in runs]
    if any(model.stats.scale != data.scale for model in models):
        raise UserError("The runs read ratings on different scales: train them with the same --scale.")
    if settings.weights:
        weights = torch.tensor(settings.weights)
    else:
        request = evaluator.request_times.of(split.train, split.val)
        weights = fit_weights(evaluator, [as_fitted(model, data, split.train, request).score for model in models])
    blended = weighted_sum([evaluator.fitted_for_test(model).score for model in models], weights)
    ranking = evaluator.rank(blended, evaluator.split.known, split.test)
    metrics: dict[str, Any] = mean_metrics(ranking, evaluator.k)
    metrics["weights"] = {display_path(run): weight for run, weight in zip(runs, weights.tolist(), strict=True)}
    metrics["of_each"] = {display_path(run): record["ndcg@10"] for run, record in zip(runs, records, strict=True)}
    output = settings.output or RUNS / f"blend-{data.name}"
    output.mkdir(parents=True, exist_ok=True)
    write_table(output / "test_topn.csv", evaluator.table(ranking))
    metrics["protocols"] = {display_path(run): record["protocol"] for run, record in zip(runs, records, strict=True)}
    write_json(output / "blend.json", metrics | {name: records[0][name] for name in SAME})
    for run, weight in metrics["weights"].items():
        print(f"{run}: weight {weight:.3f}, NDCG@10 {metrics['of_each'][run]:.4f}")
    print(f"All together: test HR@10 {metrics['hr@10']:.4f}, NDCG@10 {metrics['ndcg@10']:.4f}.")
    print(f"Wrote blend.json and test_topn.csv into {display_path(output)}.")


def checked(runs: Sequence[Path], weights: Sequence[float]) -> list[dict[str, Any]]:
    """The runs' test records.

    Raises:
        UserError: there is only one run, one predicts ratings, continued from another or was tested on different rows,
            or weights are missing.
    """
    if len(runs) < 2:
        raise UserError("--runs: give two runs or more.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("--runs names a run more than once: name each once.")
    if weights and (len(weights) != len(runs) or not np.isfinite(weights).all()):
        raise UserError(f"--weights: give {len(runs)} numbers, one for each of --runs.")
    records = [read_json(run / TEST_METRICS) for run in runs]
    for run, record in zip(runs, records, strict=True):
        if record["task"] != "ranking":
            raise UserError(f"{run} predicts ratings: give runs of presets that rank.")
        if saved_config(run).run.continue_from:
            raise UserError(f"{run} continued from another run, on which its split depends: train it from scratch.")
        if not record["val_rows"] and not weights:
            raise UserError(f"{run} has no validation rows to choose weights by: give them with --weights.")
        if any(record[name] != records[0][name] for name in SAME):
            raise UserError(f"{run} was tested on different rows than {runs[0]}: train both on the same split.")
    return records


def fit_weights(evaluator: RankingEvaluator, scores: Sequence[ScoreFn]) -> Tensor:
    """The weights of the scores, [M], that maximise the likelihood of the relevant validation ratings.

    With large data, only every second, third ... user is used, so that all scores fit into memory.
    """
    data, train, rows = evaluator.data, evaluator.split.train, evaluator.relevant(evaluator.split.val)
    seen, relevant = (data.select(part).matrix() for part in (train, rows))
    asked = np.unique(data.user[rows])
    asked = asked[:: 1 + len(asked) * len(scores) * len(data.movies) // MAX_SCORES]
    users = torch.from_numpy(asked).split(evaluator.chunk_users)
    of_all = torch.stack([torch.cat([score(chunk).float() for chunk in users]) for score in scores])  # [M, U, n]
    candidates = torch.from_numpy(seen[asked].toarray() == 0)
    wanted = relevant[asked].nonzero()
    spread = of_all[:, candidates].std(1)
    of_all /= spread[:, None, None]
    weights = torch.full((len(scores),), 1 / len(scores), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = torch.einsum("m,mun->un", weights, of_all).masked_fill(~candidates, -torch.inf)
        value = -total.log_softmax(1)[wanted].mean()
        value.backward()
        return value

    optimizer.step(loss)
    return (weights / spread).detach()


def weighted_sum(scores: Sequence[ScoreFn], weights: Tensor) -> ScoreFn:
    return lambda users: sum(weight * score(users) for weight, score in zip(weights, scores, strict=True))


if __name__ == "__main__":
    cli.run(main)
