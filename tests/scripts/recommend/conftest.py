"""Fixtures of the tests of generate_recommendation.py."""

import pytest
import torch

from Models.checkpoint import SavedModel, load_model


@pytest.fixture(scope="module")
def saved(tiny_run) -> SavedModel:
    return load_model(tiny_run / "best.pt", torch.device("cpu"))
