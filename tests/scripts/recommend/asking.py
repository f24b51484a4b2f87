"""Helpers that query generate_recommendation.py and read its output."""

import json
from pathlib import Path

import pytest
from helpers import recommend_here, tiny_ratings

from utils.files import UserError

SCRIPT = "generate_recommendation.py"
RATED = {user: {row[1] for row in tiny_ratings() if row[0] == user} for user in range(1, 90, 3)}


def ids_in(line: str) -> list[int]:
    """The ids in the last line of the text format."""
    return json.loads(line.split(": ")[1])


def refusal(run: Path, *flags: object) -> str:
    """The sentence that refuses a request, whether before or after the run is read."""
    with pytest.raises(UserError) as error:
        recommend_here("--run", run, *flags)
    return str(error.value)
