"""The models and presets of train.py: a preset is one complete training configuration."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import numpy as np
import tyro

from Models.Autoencoder import Autoencoder, AutoencoderConfig
from Models.Content import Content, ContentConfig
from Models.Dataset import Model
from Models.features import FeatureConfig
from Models.HistoryRecommender import HistoryConfig, HistoryRecommender
from Models.inputs import HIGHEST, LOWEST, NonNegFloat, NonNegInt, PositiveInt, RatingScale
from Models.Original import OriginalConfig, OriginalRecommender
from Models.RankingRecommender import RankingNCFConfig, RankingRecommender
from Models.ratings_data import RatingsData, load_data, split_rows
from Models.Recommender import NCFConfig, Recommender
from Models.Sequential import Sequential, SequentialConfig
from utils.config import (
    DEFAULT_DATA,
    DataFolder,
    Device,
    Encoding,
    FeaturesFile,
    OptionalFileName,
    OptionalFolder,
    RelevanceThreshold,
    features_file,
    from_json,
    to_json,
)
from utils.files import UserError, note, read_json
from utils.splits import Ratios, Split, SplitName

MIDDLE = (LOWEST + HIGHEST) / 2  # of the models' scale

# A model is one line here (the class of its settings and its own class) and at least one preset below.
MODELS: dict[type, type[Model]] = {
    NCFConfig: Recommender,
    RankingNCFConfig: RankingRecommender,
    OriginalConfig: OriginalRecommender,
    HistoryConfig: HistoryRecommender,
    SequentialConfig: Sequential,
    AutoencoderConfig: Autoencoder,
    ContentConfig: Content,
}


@dataclass(frozen=True)
class DataConfig:
    """Which ratings train, validate and test."""

    folder: DataFolder = DEFAULT_DATA
    features: FeaturesFile = None
    split: SplitName = "random"
    """how to split the ratings"""
    ratios: Annotated[Ratios, tyro.conf.arg(metavar="TRAIN VAL TEST")] = (0.5, 0.3, 0.2)
    """share of each part; VAL may be 0: then the number of epochs is fixed"""
    train_file: OptionalFileName = None
    """your own training ratings, with --test-file, instead of --split"""
    test_file: OptionalFileName = None
    """your own test ratings, with --train-file"""
    encoding: Encoding = None
    scale: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="LOW HIGH", help_behavior_hint="(optional)")] = (
        None
    )
    """the lowest and the highest possible rating (default: those of the training ratings)"""

    def load(self) -> tuple[RatingsData, Split]:
        """The data set with its movies' features, and which of its rows train, validate and test."""
        paths = self.located()
        data = load_data(paths.folder, paths.features, paths.train_file, paths.test_file, self.encoding)
        split = split_rows(data, self.split, self.ratios)
        return self.scaled(data, split.train), split

    def scaled(self, data: RatingsData, rows: np.ndarray) -> RatingsData:
        """The data on the scale of --scale or else of these training rows; other ratings do not affect it.

        Raises:
            UserError: --scale is not a valid range, or a rating lies outside it.
        """
        if self.scale is None:
            scale, n = RatingScale.of(data.rating[rows]), len(data.rating)
            far = np.abs(scale.to_model(data.rating) - MIDDLE) > HIGHEST - LOWEST
            if not scale.is_constant and far.any():
                note(
                    f"{far.sum():,} of {n:,} ratings are far outside the training ratings, {scale.low:g} to "
                    f"{scale.high:g}: if they are on another scale, convert them."
                )
            return dataclasses.replace(data, scale=scale)
        low, high = self.scale
        if not (low <= data.rating.min() and data.rating.max() <= high and high - low < float("inf")):
            raise UserError(
                f"--scale {low:g} {high:g}: the ratings are from {data.rating.min():g} to {data.rating.max():g}; "
                "give the lowest and the highest possible rating."
            )
        return dataclasses.replace(data, scale=RatingScale(low, high))

    def located(self) -> "DataConfig":
        """The same with absolute paths; the user's own files are also looked for in the data set's folder."""
        paths = {name: getattr(self, name) for name in ("train_file", "test_file") if getattr(self, name)}
        found = {name: path if path.is_file() else self.folder / path for name, path in paths.items()}
        found |= {"folder": self.folder, "features": features_file(self.folder, self.features)}
        return dataclasses.replace(self, **{name: path.absolute() for name, path in found.items()})


@dataclass(frozen=True)
class RankingConfig:
    """How rankings are evaluated."""

    relevance_threshold: RelevanceThreshold = None


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation with AdamW."""

    epochs: PositiveInt
    """maximum number of epochs"""
    batch_size: PositiveInt
    """ratings per step; users, for the presets that rank"""
    lr: NonNegFloat
    """learning rate"""
    weight_decay: NonNegFloat
    """decoupled weight decay of the linear layers"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """learning rate over the epochs; cosine: warm-up, then decay to 0"""
    patience: NonNegInt = 0
    """stop after this many epochs without a better validation; 0: never"""
    amp: bool = False
    """compute products of training steps in bfloat16 (automatic mixed precision), if the device supports it"""


@dataclass(frozen=True)
class RunConfig:
    """Where and how a training runs."""

    run: OptionalFolder = None
    """folder for this training (default: a new one in runs/)"""
    resume: OptionalFolder = None
    """resume the stopped training in this folder, with its configuration"""
    final: OptionalFolder = None
    """train the configuration of this finished run on all ratings, for recommending"""
    continue_from: OptionalFolder = None
    """start from the weights of this finished run, with its configuration, on the data as it is now"""
    seed: NonNegInt = 0
    """seed of the model; which rows are tested does not depend on it"""
    device: Device = "auto"
    shard: Literal["none", "rows"] = "none"
    """rows: each torchrun process holds its part of the rows of the user and movie tables"""
    tensorboard: bool = False
    """also write TensorBoard logs into the run folder"""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training depends on. `ranking` is None if ratings are predicted."""

    preset: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """a named configuration; other flags override it"""
    model: Union[tuple(MODELS)]  # noqa: UP007  the settings of any model
    optim: OptimConfig
    ranking: RankingConfig | None = None
    features: FeatureConfig = field(default_factory=FeatureConfig)
    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if (self.model.task == "ranking") != (self.ranking is not None):
            raise ValueError(f"The preset {self.preset} is for another task than its model, {self.model.task}.")

    @property
    def kind(self) -> str:
        """What is trained, for the name of the run folder."""
        return f"{self.preset}-final" if self.run.final else self.preset

    def training(self) -> dict[str, Any]:
        """All settings that determine what is trained, as plain values; not where or on which device."""
        run = dataclasses.replace(self.run, run=None, resume=None, device="auto", shard="none", tensorboard=False)
        return to_json(dataclasses.replace(self, data=self.data.located(), run=run))

    def changes(self) -> dict[str, Any]:
        """The settings of model, features and optimisation that differ from the preset's, by name."""
        preset, found = PRESETS[self.preset], {}
        for part in ("model", "features", "optim"):
            mine, theirs = to_json(getattr(self, part)), to_json(getattr(preset, part))
            found |= {name: value for name, value in mine.items() if value != theirs[name]}
        return found


PRESETS: dict[str, TrainConfig] = {
    config.preset: config
    for config in (
        TrainConfig(
            preset="ncf",
            model=NCFConfig(),
            optim=OptimConfig(epochs=12, batch_size=4096, lr=0.01, weight_decay=1.0),
        ),
        TrainConfig(
            preset="original",
            model=OriginalConfig(),
            optim=OptimConfig(epochs=50, batch_size=256, lr=1e-3, weight_decay=0.0, schedule="constant"),
            features=FeatureConfig(blocks=("title", "genres"), unit_titles=False),
        ),
        TrainConfig(
            preset="history",
            model=HistoryConfig(),
            optim=OptimConfig(epochs=8, batch_size=8192, lr=0.01, weight_decay=1.0),
            features=FeatureConfig(blocks=("title", "genres")),
        ),
        TrainConfig(
            preset="ncf-ranking",
            model=RankingNCFConfig(),
            optim=OptimConfig(epochs=30, batch_size=256, lr=4e-3, weight_decay=0.02),
            ranking=RankingConfig(),
        ),
        TrainConfig(
            preset="autoencoder",
            model=AutoencoderConfig(),
            optim=OptimConfig(epochs=36, batch_size=256, lr=1e-3, weight_decay=0.02),
            ranking=RankingConfig(),
        ),
        TrainConfig(
            preset="content",
            model=ContentConfig(),
            optim=OptimConfig(epochs=4, batch_size=256, lr=0.1, weight_decay=0.0),
            ranking=RankingConfig(),
        ),
        TrainConfig(
            preset="transformer",
            model=SequentialConfig(architecture="transformer"),
            optim=OptimConfig(epochs=24, batch_size=32, lr=1.5e-3, weight_decay=0.0),
            features=FeatureConfig(blocks=("title", "genres")),
            ranking=RankingConfig(),
        ),
        TrainConfig(
            preset="gru",
            model=SequentialConfig(architecture="gru", embedding_dim=64, num_layers=2, dropout=0.2),
            optim=OptimConfig(epochs=24, batch_size=32, lr=2e-3, weight_decay=0.0),
            features=FeatureConfig(blocks=("title", "genres")),
            ranking=RankingConfig(),
        ),
    )
}
DEFAULT_PRESET = "ncf"


def saved_config(folder: Path) -> TrainConfig:
    """The configuration in a run folder's config.json.

    Raises:
        UserError: there is none, or it is from another version of this code.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no training: start one with python train.py --run {folder}.")
    try:
        values = read_json(path)["config"]
        values["run"] = {"shard": "none"} | values["run"]  # a flag that earlier training runs did not have
        return from_json(PRESETS[values["preset"]], values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged or from another version of this code: train again with python train.py."
        ) from error
