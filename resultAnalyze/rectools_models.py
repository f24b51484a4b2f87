#!/usr/bin/env python3
"""SASRec and HSTU of the RecTools library on rows from compare_rectools.py, which runs this in their environment.

    .venv-rectools/bin/python resultAnalyze/rectools_models.py --folder runs/rectools-ml-1m --model HSTU --seed 0

Nothing of this repo is imported: RecTools and this repo need different versions of NumPy. Reads known.csv and asked.csv
from the folder and writes <model>-<seed>.csv, the top ten movies of each user, and the training's record in
<model>-<seed>.json. An interrupted training resumes after its last whole epoch.
"""

import argparse
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import HSTUModel, SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

# Those of the library's own benchmark on MovieLens 1M, examples/tutorials/transformers_HSTU_tutorial.ipynb in its
# repository, with two changes: the softmax is over all movies instead of 128 sampled ones, which would be no faster on
# a CPU, and training ends when validation has not improved for PATIENCE epochs.
SETTINGS = {
    "n_factors": 50,
    "dropout_rate": 0.2,
    "session_max_len": 200,
    "batch_size": 128,
    "lr": 1e-3,
    "loss": "softmax",
    "lightning_module_kwargs": {"logits_t": 0.05},
    "item_net_block_types": (IdEmbeddingsItemNet,),
}
MODELS = {
    "SASRec": (SASRecModel, {"n_blocks": 2, "n_heads": 1}),
    "HSTU": (HSTUModel, {"n_blocks": 2, "n_heads": 1}),
    "HSTU-large": (HSTUModel, {"n_blocks": 8, "n_heads": 2}),
}
PATIENCE = 10
MONITORED = {"monitor": "val_recall", "mode": "max"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100, help="maximum epochs (default: 100)")
    parser.add_argument("--minutes", type=float, default=600, help="maximum minutes of training (default: 600)")
    parser.add_argument("--k", type=int, default=10, help="length of the lists (default: 10)")
    flags = parser.parse_args()
    torch.use_deterministic_algorithms(True, warn_only=True)  # some operations have no deterministic version on a GPU
    seed_everything(flags.seed, verbose=False)

    known = with_dates(pd.read_csv(flags.folder / "known.csv"))
    asked = with_dates(pd.read_csv(flags.folder / "asked.csv"))
    validates = known.pop("validates").to_numpy(bool)
    dataset = Dataset.construct(known)
    kind, layers = MODELS[flags.model]
    path = flags.folder / f"{flags.model}-{flags.seed}"
    callbacks = [
        ValidationRecall(flags.k),
        EarlyStopping(patience=PATIENCE, **MONITORED),
        Timer(timedelta(minutes=flags.minutes)),
        ModelCheckpoint(dirpath=path, filename="best", save_last=True, **MONITORED),
    ]
    trainer = ResumingTrainer(
        max_epochs=flags.epochs,
        accelerator="auto",
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = kind(
        get_val_mask_func=lambda interactions: validates,
        get_trainer_func=lambda: trainer,
        **layers,
        **SETTINGS,
    )
    model.fit(dataset)
    trainer = model.fit_trainer  # the model trains with a copy of the trainer
    (timer,) = (callback for callback in trainer.callbacks if isinstance(callback, Timer))
    model.load_weights_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    context = {"context": asked.assign(**{Columns.Weight: 1.0})} if model.require_recommend_context else {}
    found = model.recommend(asked[Columns.User], dataset, flags.k, filter_viewed=True, **context)
    found[[Columns.User, Columns.Rank, Columns.Item]].to_csv(f"{path}.csv", index=False)
    record = {
        "epochs": trainer.fit_loop.epoch_progress.current.ready,  # current_epoch is one too low after resuming
        "seconds": round(timer.time_elapsed(), 1),
        "converged": trainer.early_stopping_callback.stopped_epoch > 0,
        "request_time": bool(context),
    }
    Path(f"{path}.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(path)


class ValidationRecall(Callback):
    """Logs the share of users whose validation movie is in the top k of the movies that are not in their history."""

    def __init__(self, k: int):
        self.k, self.found = k, []

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, *numbers) -> None:
        model, movies = module.torch_model, module.item_embs
        scores = model.similarity_module(model.encode_sessions(batch, movies)[:, -1], movies)
        scores = scores.scatter(1, batch["x"], -torch.inf)
        self.found.append((scores.topk(self.k).indices == batch["y"]).any(1))

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        module.log("val_recall", torch.cat(self.found).float().mean())
        self.found.clear()


class ResumingTrainer(Trainer):
    """Resumes from the last epoch in its checkpoint folder, if there is one."""

    def fit(self, model, train, validation) -> None:
        model.is_fitted = (Path(self.checkpoint_callback.dirpath) / "last.ckpt").is_file()  # or it draws new weights
        super().fit(model, train, validation, ckpt_path="last")


def with_dates(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{Columns.Datetime: pd.to_datetime(table[Columns.Datetime], unit="s")})


if __name__ == "__main__":
    main()
