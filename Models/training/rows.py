"""Which rows a training uses: those of its split or, for --final, all; and what is printed about them."""

import numpy as np

from Models.configs import TrainConfig
from Models.ratings_data import RatingsData, note_on_order
from Models.training.run_folder import check_same_data
from Models.training.warm_start import Earlier, load_earlier, on_scale_of, split_after
from utils import runs
from utils.files import UserError, read_json
from utils.splits import NEEDS_TIME, Split, share_before_training_end


def rows_of(config: TrainConfig) -> tuple[RatingsData, Split, int, Earlier | None]:
    """The data, its rows that train, validate and test, how many epochs, and the run that the training continues."""
    data, split = config.data.load()
    n_epochs = config.optim.epochs
    earlier = load_earlier(config.run.continue_from, data) if config.run.continue_from else None
    if config.run.final:
        split, n_epochs = all_rows(config, data)
    elif earlier:
        split = split_after(earlier, data, split)
    if earlier:
        data = on_scale_of(earlier, data, config.data.scale)
    elif config.run.final:
        data = config.data.scaled(data, split.train)
    return data, split, n_epochs, earlier


def all_rows(config: TrainConfig, data: RatingsData) -> tuple[Split, int]:
    """For --final: all rows train, for as many epochs as the validation of the finished run chose.

    Raises:
        UserError: the run is not finished, or was trained on other ratings or features.
    """
    source = runs.finished_run(config.run.final, tested=True)
    check_same_data(source, config, data)
    n, nothing = len(data.user), np.empty(0, np.int64)
    split = Split(np.arange(n), nothing, nothing, f"all {n:,} ratings train, nothing is tested")
    metrics = read_json(source / runs.TEST_METRICS)
    best = metrics.get("best_epoch") if isinstance(metrics, dict) else None
    if not isinstance(best, int) or best < 1:
        raise UserError(f"{source / runs.TEST_METRICS} is damaged, it names no best epoch: train again with train.py.")
    return split, best


def describe_split(config: TrainConfig, data: RatingsData, split: Split) -> None:
    """Print which rows train and test, and what a reader of the figures should know about them."""
    sizes = " / ".join(f"{len(rows):,}" for rows in (split.train, split.val, split.test))
    print(f"{data.name}: {sizes} ratings. {split.protocol[0].upper()}{split.protocol[1:]}.")
    if config.data.split in NEEDS_TIME and (note := note_on_order(data)):
        print(note)
    if len(split.test) and (share := share_before_training_end(data.time, split)):
        print(
            f"Note: {share:.0%} of the test ratings are older than the newest training rating, so that these figures "
            "do not measure forecasting; --split time does."
        )
