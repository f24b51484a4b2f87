"""Configurations: one dataclass defines a command line (by tyro), its help, its defaults and its JSON."""

import codecs
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from annotated_types import Interval, Predicate
from typeguard import TypeCheckError, check_type

from utils.files import DATASET

Config = TypeVar("Config")

DEFAULT_DATA = DATASET / "ml-1m"
DEFAULT_FEATURES = DATASET / "movie_bert_dict.pkl"


def features_file(data: Path, named: Path | None = None) -> Path:
    """The features file that is named or, without one, that of this data folder."""
    return named or file_of(data, DEFAULT_FEATURES, ".pkl")


def file_of(data: Path, default: Path, suffix: str) -> Path:
    """A generated file of a data folder: `default` for dataset/ml-1m, else one in dataset/ with the folder's name."""
    return default if data.resolve() == DEFAULT_DATA.resolve() else DATASET / f"{data.resolve().name}{suffix}"


def _is_file_name(path: Path) -> bool:
    """the name of a file"""
    return path.name not in ("", "..")


def _is_encoding(name: str) -> bool:
    """a text encoding that Python knows, such as utf-8, cp1252 or gbk"""
    try:
        codecs.lookup(name)
        b" ".decode(name)
    except UnicodeError:  # one byte is only part of a character
        return True
    except (LookupError, ValueError):
        return False
    return True


def optional(kind: type, metavar: str, default: str = "optional") -> Any:
    """The type of an optional flag; unlike tyro's own, it takes the word None as a value.

    Args:
        kind: makes the value from the word
        default: shown by --help
    """
    word = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: kind(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )
    return Annotated[kind | None, word, tyro.conf.arg(help_behavior_hint=f"({default})")]


def flag(name: str) -> str:
    """A setting's name as typed."""
    return "--" + name.replace("_", "-")


def as_typed(name: str, value: Any) -> list[str]:
    """The words of a setting on a command line."""
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [flag(name), *map(str, value if isinstance(value, list | tuple) else [value])]


# Types of values, with their limits. In a dataclass, the text below a field is its help.
FileName = Annotated[Path, tyro.conf.arg(metavar="FILE"), Predicate(_is_file_name)]
Folder = Annotated[Path, tyro.conf.arg(metavar="DIR")]
OptionalFileName = Annotated[optional(Path, "FILE"), Predicate(_is_file_name)]
OptionalFolder = optional(Path, "DIR")

# Flags shared by several scripts.
DataFolder = Annotated[
    Path, tyro.conf.arg(name="data", metavar="DIR", help="folder of the data set; its files show the format")
]
FeaturesFile = Annotated[
    optional(Path, "FILE", "default: dataset/movie_bert_dict.pkl for dataset/ml-1m, else dataset/<name of --data>.pkl"),
    tyro.conf.arg(help="movie features made by utils/BERT.py"),
    Predicate(_is_file_name),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], tyro.conf.arg(help="where to compute; auto uses a GPU if there is one")
]

Encoding = Annotated[
    optional(str, "NAME", "default: UTF-8, or latin-1 for MovieLens 100K and 1M"),
    tyro.conf.arg(help="encoding of the text files, such as cp1252 or gbk"),
    Predicate(_is_encoding),
]
RelevanceThreshold = Annotated[
    float | None,
    tyro.conf.arg(
        help="lowest rating of a relevant movie, which should be recommended (default: three quarters of the way from "
        "the lowest to the highest training rating: 4 for ratings from 1 to 5, 75 from 0 to 100)",
        metavar="FLOAT",
        help_behavior_hint="",
    ),
]


def parse(
    config: type[Config], description: str, argv: Sequence[str] | None = None, default: Any = tyro.MISSING_NONPROP
) -> Config:
    """The command line as a `config`. Wrong usage ends the script with exit code 2.

    Args:
        config: a dataclass, or several (`Export | Push`), of which the first word names one
        description: shown by --help
        argv: the words to parse, by default those of the script
        default: replaces the dataclass's defaults; a field that may hold one of several configs is narrowed to the
            one it holds, so that only the flags of that one are accepted
    """
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands)
    try:
        parsed = tyro.cli(config, args=argv, default=default, description=description, config=markers)
        for problem in _problems(parsed):
            raise ValueError(problem)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    return parsed


def _problems(config: Any) -> Iterator[str]:
    """The values outside the limits that their types declare, in words."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _problems(value)
        for one in value if isinstance(value, tuple) else (value,):
            for limit in _limits(hints[field.name]):
                if one is not None and not _holds(limit, one):
                    yield f"{flag(field.name)} {str(one)!r} is not {_in_words(limit)}."


def _limits(hint: Any) -> Iterator[Any]:
    """The limits that a type declares for its values, or for the elements of a tuple."""
    for one in (hint, *typing.get_args(hint)):
        yield from getattr(one, "__metadata__", ())


def _holds(limit: Any, value: Any) -> bool:
    """Whether a value is within a limit; NaN is within none."""
    if isinstance(limit, Interval):
        return limit.ge <= value < limit.lt
    return limit.func(value) if isinstance(limit, Predicate) else True


def _in_words(limit: Any) -> str:
    if isinstance(limit, Predicate):
        return limit.func.__doc__
    if limit.lt == float("inf"):
        return f"a finite number of at least {limit.ge}"
    return f"at least {limit.ge} and below {limit.lt}"


def to_json(value: Any) -> Any:
    """A config as plain values; paths become absolute, so that they are valid from any folder."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Path):
        return str(value.absolute())
    return [to_json(one) for one in value] if isinstance(value, tuple) else value


def from_json(default: Config, values: dict[str, Any]) -> Config:
    """`default` with the values that `to_json` wrote.

    Raises:
        ValueError: they are of a config with other fields, or not valid for these.
    """
    hints = typing.get_type_hints(type(default))
    if values.keys() != {field.name for field in fields(default)}:
        raise ValueError(f"{type(default).__name__} has other fields")
    restored = {}
    for name, value in values.items():
        old = getattr(default, name)
        is_path = value is not None and Path in (hints[name], *typing.get_args(hints[name]))
        restored[name] = from_json(old, value) if is_dataclass(old) else _path(value) if is_path else _tuples(value)
        if not _is_of_type(restored[name], hints[name]):
            raise ValueError(f"{name} is {value!r}")
    config = replace(default, **restored)
    for problem in _problems(config):
        raise ValueError(problem)
    return config


def _path(value: str) -> Path:
    """A path from JSON, which is in UTF-8, in this system's encoding of names."""
    return Path(os.fsdecode(value.encode("utf-8", "surrogateescape")))


def _is_of_type(value: Any, hint: Any) -> bool:
    try:
        check_type(value, hint)
    except TypeCheckError:
        return False
    return True


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
