"""Command lines: a script's settings are one dataclass, and each flag is one of its fields."""

import argparse
import os
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from utils.files import DATASET, UserError

Settings = TypeVar("Settings")
Device = Literal["auto", "cpu", "cuda", "mps"]


def flag(default: Any, help: str, **options: Any) -> Any:
    """A dataclass field that is a command-line flag; `options` go to argparse (metavar, type, ...)."""
    return field(default=default, metadata={"help": help, **options})


# The flags that every script spells the same way.
def data_flag() -> Any:
    return flag(DATASET / "ml-1m", "folder of the data set; its format is recognised from its files", metavar="DIR")


def features_flag() -> Any:
    return flag(DATASET / "movie_bert_dict.pkl", "movie features made by utils/BERT.py", metavar="FILE")


def device_flag() -> Any:
    return flag("auto", "where to compute; auto takes a GPU if there is one")


def run_flag(help: str) -> Any:
    return flag(None, help, metavar="DIR")


def file(text: str) -> Path:
    """argparse type: a path whose last part can be a file's name."""
    path = Path(text)
    if not path.name or path.name == "..":
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file")
    return path


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1, and no larger than an index can be."""
    return _bounded(text, int, 1, 2**31)


def count(text: str) -> int:
    """argparse type: a whole number of at least 0, and no larger than an index can be."""
    return _bounded(text, int, 0, 2**31)


def not_negative(text: str) -> float:
    """argparse type: a number of at least 0."""
    return _bounded(text, float, 0)


def share(text: str) -> float:
    """argparse type: a number of at least 0 and under 1."""
    return _bounded(text, float, 0, 1)


def _bounded(text: str, kind: Callable[[str], Any], low: float, high: float = float("inf")) -> Any:
    value = kind(text)
    if not low <= value < high:
        raise argparse.ArgumentTypeError(f"{text} is not from {low} to under {high}")
    return value


def parse(
    settings: type[Settings],
    description: str,
    argv: Sequence[str] | None,
    defaults_for: Callable[[argparse.Namespace], dict[str, Any]] | None = None,
) -> Settings:
    """Parse `argv` into the dataclass `settings`.

    `defaults_for` gives other defaults in the light of the flags, such as those of a preset; the flags given win.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    hints = typing.get_type_hints(settings)
    for one in fields(settings):  # type: ignore[arg-type]
        parser.add_argument("--" + one.name.replace("_", "-"), **_argument(one, hints[one.name]))
    if defaults_for:
        chosen, _ = parser.parse_known_args(argv)
        parser.set_defaults(**defaults_for(chosen))
    return settings(**vars(parser.parse_args(argv)))


def _argument(one: Field, hint: Any) -> dict[str, Any]:
    """The argparse options of one field: its type hint says how many values there are and of which type."""
    default = None if one.default is MISSING else one.default
    help = one.metadata["help"]
    options: dict[str, Any] = {
        "default": default,
        "help": help if default is None else f"{help} (default: %(default)s)",
    }
    if typing.get_origin(hint) in (typing.Union, types.UnionType):  # Path | None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif typing.get_origin(hint) is Literal:
        options["choices"] = typing.get_args(hint)
    elif typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if kinds[-1] is Ellipsis:  # any number of words from a list
            options.update(nargs="*", choices=typing.get_args(kinds[0]))
        else:
            options.update(nargs=len(kinds), type=kinds[0])
    else:
        options["type"] = file if one.metadata.get("metavar") == "FILE" else hint
    options.update({name: value for name, value in one.metadata.items() if name != "help"})
    return options


def to_json(settings: Any) -> dict[str, Any]:
    """Settings as plain values; paths become absolute, so that they hold in any folder."""
    values = {one.name: getattr(settings, one.name) for one in fields(settings)}
    return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}


def from_json(settings: type[Settings], values: dict[str, Any]) -> Settings:
    """The settings that `to_json` wrote."""
    hints = typing.get_type_hints(settings)
    restored = {}
    for name, value in values.items():
        is_path = value is not None and Path in (hints[name], *typing.get_args(hints[name]))
        restored[name] = Path(value) if is_path else tuple(value) if isinstance(value, list) else value
    return settings(**restored)


class Messages:
    """A script's screen. If its reader goes away, as `head` does, the work goes on and says no more."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def run(main: Callable[[], None], prints_results: bool = False) -> None:
    """Call a script's main: exit code 0 on success, 1 and one sentence on a fault that the user can mend.

    A script that `prints_results` ends when nobody reads them any more; others have work that goes on.
    """
    if not prints_results:
        sys.stdout = Messages(sys.stdout)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:  # a script of ours, which has said why
        sys.exit(f"error: {Path(error.cmd[1]).name} failed; what it said stands above.")
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # no permission, disk full, a folder where a file should be
        sys.exit(
            f"error: {error.filename or 'a file'}: {error.strerror or error}. Check the path, permissions and space."
        )
    except (MemoryError, RuntimeError) as error:  # PyTorch's of both kinds of memory are RuntimeErrors
        if not isinstance(error, MemoryError) and "out of memory" not in str(error) and "allocate" not in str(error):
            raise
        reason = (str(error).strip().splitlines() or ["no more could be had"])[0]
        sys.exit(f"error: Out of memory ({reason}): lower --batch-size, take a smaller model or another --device.")
    except KeyboardInterrupt:
        sys.exit("\nStopped: nothing that was written is lost; a training goes on with train.py --resume.")


def resolve_device(name: Device) -> Any:
    """The torch device of a --device flag; `auto` prefers cuda, then mps, then the CPU.

    Raises:
        UserError: the named device is not on this machine.
    """
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if found[kind])
    if not found[name]:
        raise UserError(f"There is no {name} device on this machine: use --device cpu or --device auto.")
    return torch.device(name)


def shown(path: Path) -> str:
    """A path as the user would type it: relative to the current folder where it lies inside it."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
