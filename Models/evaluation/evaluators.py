"""The evaluator of a training, and the epoch that it prefers."""

from typing import Any

from Models.configs import TrainConfig
from Models.evaluation.rankings import RankingEvaluator
from Models.evaluation.ratings import RatingEvaluator
from Models.ratings_data import RatingsData
from utils.splits import Split

Evaluator = RatingEvaluator | RankingEvaluator


def make_evaluator(config: TrainConfig, data: RatingsData, split: Split) -> Evaluator:
    """The evaluator of a training: of predicted ratings or, for presets that rank, of rankings."""
    if config.ranking:
        return RankingEvaluator(data, split, data.scale.threshold(config.ranking.relevance_threshold))
    return RatingEvaluator(data, split)


def best_epoch(epochs: list[dict[str, Any]], evaluator: Evaluator) -> int:
    """The best epoch by validation, the first of equals; the last epoch if there is no validation."""
    if evaluator.monitor not in epochs[0]:
        return epochs[-1]["epoch"]
    better = min if evaluator.mode == "min" else max
    return better(epochs, key=lambda row: row[evaluator.monitor])["epoch"]
