"""In every test here, an unexpected note on the data is an error."""

import warnings

import pytest

from utils.files import Note


@pytest.fixture(autouse=True)
def notes_are_seen():
    """Turn notes that a test does not expect into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        yield
