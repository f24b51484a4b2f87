"""Named configurations: what `train.py --preset NAME` sets otherwise than the defaults of its flags."""

from typing import Any, Literal

PresetName = Literal["default", "ncf", "original", "ncf-ranking", "transformer", "gru", "autoencoder"]

NCF = {"model": "Recommender", "schedule": "constant"}
SEQUENTIAL = {
    **{"model": "Sequential", "objective": "ranking", "embedding": 64, "dropout": 0.2},
    **{"epochs": 24, "batch_size": 32, "lr": 2e-3, "weight_decay": 0.0},
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "ncf": NCF | {"embedding": 64, "epochs": 100, "patience": 5, "batch_size": 4096, "lr": 3e-3, "weight_decay": 10.0},
    "original": {
        **NCF,
        **{"embedding": 32, "hidden": (128, 64), "dropout": 0.2, "l2": 0.0, "l2_bias": 0.0},
        **{"biases": False, "gmf": False, "unit_titles": False, "sigmoid": True},
        **{"epochs": 50, "patience": 0, "batch_size": 256, "lr": 1e-3, "weight_decay": 0.0},
    },
    "ncf-ranking": {
        **{"model": "Recommender", "objective": "ranking", "embedding": 64, "l2": 1e-3, "l2_bias": 0.0},
        **{"epochs": 10, "batch_size": 4096, "lr": 3e-3},
    },
    "transformer": SEQUENTIAL | {"layer": "transformer"},
    "gru": SEQUENTIAL | {"layer": "gru"},
    "autoencoder": {
        **{"model": "Autoencoder", "objective": "ranking", "embedding": 512, "dropout": 0.5},
        **{"epochs": 36, "batch_size": 256, "lr": 1e-3, "weight_decay": 0.02},
    },
}
