"""Notes on the data are seen in every test here."""

import warnings

import pytest

from utils.files import Note


@pytest.fixture(autouse=True)
def notes_are_seen():
    """A note that a test does not expect is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        yield
