"""The command line of train.py: a preset with the flags given, or the configuration of an earlier training."""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from Models.configs import DEFAULT_PRESET, PRESETS, RunConfig, TrainConfig, saved_config
from utils import runs
from utils.config import parse
from utils.files import UserError


def parse_training(description: str, argv: Sequence[str] | None = None) -> TrainConfig:
    """The configuration of a command line: that of its preset, with the flags given.

    Raises:
        UserError: the folder of --resume or --final does not fit, or other flags are given with these two.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    earlier = _last_value(argv, "--continue-from")
    default = PRESETS[_named_preset(argv)] if earlier is None else _continued(Path(earlier))
    listed = f"Presets: {', '.join(PRESETS)}; each has flags of its own, which --preset NAME --help shows."
    config = parse(TrainConfig, f"{description}\n{listed}", argv, default=default)
    source = config.run.resume or config.run.final
    if config.preset != default.preset and earlier is not None:
        raise UserError(f"{earlier} was trained with the preset {default.preset}: leave --preset out.")
    if source is None:
        return config
    allowed = {"--resume"} if config.run.resume else {"--final", "--run", "--device", "--shard", "--tensorboard"}
    if others := {word.split("=")[0] for word in argv if word.startswith("--")} - allowed:
        raise UserError(f"{source} has its own configuration: leave {', '.join(sorted(others))} out.")
    saved = saved_config(source)
    if config.run.resume:
        if runs.is_finished(source):
            raise UserError(f"{source} is finished: there is nothing to resume.")
        return dataclasses.replace(saved, run=dataclasses.replace(saved.run, resume=source))
    kept = {"seed": saved.run.seed, "continue_from": saved.run.continue_from}
    run = dataclasses.replace(config.run, final=source.absolute(), **kept)
    return dataclasses.replace(saved, run=run)


def _named_preset(argv: Sequence[str]) -> str:
    """The preset that a command line names; wrong names end the script with exit code 2."""
    name = _last_value(argv, "--preset")
    name = DEFAULT_PRESET if name is None else name
    if name not in PRESETS:
        print(f"error: There is no preset {name!r}: choose from {', '.join(PRESETS)}.", file=sys.stderr)
        sys.exit(2)
    return name


def _last_value(argv: Sequence[str], flag: str) -> str | None:
    """The value of a flag on a command line, before the rest of it is parsed; None without the flag."""
    value = None
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        name, equals, behind = word.partition("=")
        if name.replace("_", "-") == flag:
            value = behind if equals else following
    return value


def _continued(run: Path) -> TrainConfig:
    """The configuration of a finished run as the default of a training that continues from it.

    Raises:
        UserError: the run is not finished.
    """
    saved = saved_config(runs.finished_run(run))
    return dataclasses.replace(saved, run=RunConfig(seed=saved.run.seed))
