"""Encoders of every kind: tiny models of the families that users name, and the faults of a folder that holds one."""

import json
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from helpers import main_here
from huggingface_hub.utils import filter_repo_objects
from tokenizers.pre_tokenizers import ByteLevel

from utils import BERT
from utils.encoder import FILES, Encoder, encoder_hash
from utils.features import read_info
from utils.files import Note, UserError, sha256

CPU = torch.device("cpu")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789()&,:'."
BERT_SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
CHINESE = [
    "卧虎藏龙 (2000)",
    "花样年华 (2000)",
    "霸王别姬 (1993)",
    "重庆森林 (1994)",
    "无间道 (2002)",
    "饮食男女 (1994)",
]
FRENCH = ["Misérables, Les (1995)", "Être et avoir (2002)", "À bout de souffle (1960)", "Cité des enfants perdus, La"]
TITLES = ["Film number 3", "A (1999)", FRENCH[0], "long " * 900, "", CHINESE[0], "film", "Film number 3"]

# --- families ------------------------------------------------------------------------------------


def byte_vocabulary(*special: str) -> dict[str, int]:
    """The vocabulary of a byte tokenizer without merges."""
    return {word: i for i, word in enumerate([*special, *sorted(ByteLevel.alphabet())])}


def piece_vocabulary(*special: str) -> list[tuple[str, float]]:
    """The vocabulary of a SentencePiece tokenizer that knows only single letters."""
    return [*((word, 0.0) for word in special), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]


def gpt2() -> tuple:
    tokenizer = transformers.GPT2Tokenizer(vocab=byte_vocabulary("<|endoftext|>"), merges=[])
    mark = tokenizer.eos_token_id
    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 40, "bos_token_id": mark, "eos_token_id": mark}
    return tokenizer, transformers.GPT2Model(transformers.GPT2Config(vocab_size=len(tokenizer), **sizes))


def opt() -> tuple:
    """Its last layer is narrower than config.hidden_size, as in OPT-350m."""
    marks = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.GPT2Tokenizer(vocab=byte_vocabulary("</s>", "<pad>"), merges=[], **marks)
    sizes = {"hidden_size": 16, "word_embed_proj_dim": 8, "ffn_dim": 16, "num_hidden_layers": 2}
    config = transformers.OPTConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, max_position_embeddings=40, **sizes
    )
    return tokenizer, transformers.OPTModel(config)


def roberta() -> tuple:
    """The first two of its 42 positions are reserved for padding."""
    vocabulary = byte_vocabulary("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer = transformers.RobertaTokenizer(vocab=vocabulary, merges=[])
    config = transformers.RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=42, **BERT_SIZES)
    return tokenizer, transformers.RobertaModel(config)


def xlm_roberta() -> tuple:
    tokenizer = transformers.XLMRobertaTokenizer(vocab=piece_vocabulary("<s>", "<pad>", "</s>", "<unk>"))
    config = transformers.XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=42, **BERT_SIZES)
    return tokenizer, transformers.XLMRobertaModel(config)


def t5() -> tuple:
    tokenizer = transformers.T5Tokenizer(vocab=piece_vocabulary("<pad>", "</s>", "<unk>"), extra_ids=0)
    config = transformers.T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    return tokenizer, transformers.T5Model(config)


def bart() -> tuple:
    vocabulary = byte_vocabulary("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer = transformers.BartTokenizer(vocab=vocabulary, merges=[])
    sizes = {"d_model": 8, "max_position_embeddings": 40, "encoder_layers": 2, "decoder_layers": 1}
    sizes |= {f"{half}_{name}": 2 for half in ("encoder", "decoder") for name in ("attention_heads", "ffn_dim")}
    return tokenizer, transformers.BartModel(transformers.BartConfig(vocab_size=len(tokenizer), **sizes))


# The families, and how many tokens of a text each takes; T5 has no limit of its own.
FAMILIES = {gpt2: 40, opt: 40, roberta: 40, xlm_roberta: 40, t5: 512, bart: 40}
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[Callable], Path]:
    """The folder of a family's tiny model with random weights, saved as a user would save it."""
    folders = {}

    def save(family: Callable) -> Path:
        if family not in folders:
            torch.manual_seed(0)
            folders[family] = tmp_path_factory.mktemp(family.__name__)
            for part in family():
                part.save_pretrained(folders[family])
        return folders[family]

    return save


@pytest.fixture
def copied(saved, tmp_path) -> Callable[[Callable], Path]:
    """A copy of that folder that a test may change."""
    return lambda family: Path(shutil.copytree(saved(family), tmp_path / "encoder"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@every_family
@pytest.mark.filterwarnings("ignore::utils.files.Note")
def test_batches_give_what_the_model_gives_for_one_text(saved, family, pooling):
    """A single text has no padding and is cut to what the model can take; of an encoder-decoder, the encoder counts."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved(family))
    model = transformers.AutoModel.from_pretrained(saved(family))
    model = model.encoder if family in (t5, bart) else model
    vectors = Encoder.load(saved(family), CPU).encode(TITLES, pooling, batch_size=3)
    assert vectors.shape == (len(TITLES), 8) and vectors.dtype == np.float32
    for title, vector in zip(TITLES, vectors, strict=True):
        if not title:
            assert not vector.any()
            continue
        tokens = tokenizer(title, truncation=True, max_length=FAMILIES[family])["input_ids"]
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(0) if pooling == "mean" else states[0], atol=1e-5)


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.999), ("int8", 0.9)])
@every_family
@pytest.mark.filterwarnings("ignore::utils.files.Note")
def test_less_precise_vectors_are_close_to_the_precise_ones(saved, family, precision, least):
    """Compared by cosine; the vectors are float32, whatever they were computed with."""
    if family is gpt2 and precision == "int8":  # its layers are of its own kind
        with pytest.raises(UserError, match="no linear layers"):
            Encoder.load(saved(family), CPU, precision)
        return
    texts = [title for title in TITLES if title]
    precise = Encoder.load(saved(family), CPU).encode(texts)
    vectors = Encoder.load(saved(family), CPU, precision).encode(texts)
    cosine = (precise * vectors).sum(1) / np.linalg.norm(precise, axis=1) / np.linalg.norm(vectors, axis=1)
    assert vectors.dtype == np.float32 and not np.array_equal(vectors, precise)
    assert cosine.min() > least


def test_int8_is_refused_on_a_gpu(saved):
    with pytest.raises(UserError, match="--device cpu"):
        Encoder.load(saved(roberta), "cuda", "int8")


def test_padding_on_the_left_is_not_used(copied):
    """With it, GPT-2 would count its positions from the padding."""
    folder = copied(gpt2)
    usual = Encoder.load(folder, CPU).encode(TITLES)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"padding_side": "left", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    encoder = Encoder.load(folder, CPU)
    assert encoder.tokenizer.padding_side == "left"
    np.testing.assert_allclose(encoder.encode(TITLES), usual, atol=1e-6)


def test_weights_of_half_precision_are_computed_with_in_single(saved, copied):
    folder = copied(roberta)
    transformers.AutoModel.from_pretrained(saved(roberta), dtype=torch.bfloat16).save_pretrained(folder)
    encoder = Encoder.load(folder, CPU)
    together, alone = encoder.encode(TITLES), np.concatenate([encoder.encode([title]) for title in TITLES])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_tokenizer_may_set_a_lower_limit(copied):
    folder = copied(t5)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 20}), encoding="utf-8")
    assert [len(tokens) for tokens in Encoder.load(folder, CPU).tokenize(["a", "a" * 99])] == [3, 20]


def test_features_are_made_with_another_family(saved, tiny, tmp_path):
    features = tmp_path / "features.pkl"
    main_here(BERT, "--data", tiny, "--features", features, "--encoder", saved(gpt2), "--device", "cpu")
    assert read_info(features).bert_dim == 8


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [gpt2, roberta], ids=lambda family: family.__name__)
def test_a_tokenizer_in_the_old_form_is_the_same(saved, copied, family):
    folder = copied(family)
    vocabulary = transformers.AutoTokenizer.from_pretrained(folder).get_vocab()
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    expected = Encoder.load(saved(family), CPU).encode(TITLES)
    np.testing.assert_array_equal(Encoder.load(folder, CPU).encode(TITLES), expected)


@every_family
def test_a_model_without_its_tokenizer_is_refused(copied, family):
    folder = copied(family)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match=r"holds no tokenizer: put|is not a usable encoder \("):
        Encoder.load(folder, CPU)


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="the package is installed")
def test_a_package_that_a_tokenizer_needs_is_named(copied):
    folder = copied(t5)
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    with pytest.raises(UserError, match="needs one more package: pip install sentencepiece"):
        Encoder.load(folder, CPU)


def test_weights_in_another_form_are_refused_and_can_be_converted(saved, copied, tmp_path):
    folder = copied(roberta)
    (folder / "model.safetensors").unlink()
    state = transformers.AutoModel.from_pretrained(saved(roberta)).state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no \*.safetensors weights: .*loading .* save_pretrained") as caught:
        encoder_hash(folder)
    assert "\n" not in str(caught.value)
    for kind in (transformers.AutoModel, transformers.AutoTokenizer):  # as the message says
        kind.from_pretrained(folder).save_pretrained(tmp_path / "converted")
    expected = Encoder.load(saved(roberta), CPU).encode(TITLES)
    np.testing.assert_array_equal(Encoder.load(tmp_path / "converted", CPU).encode(TITLES), expected)


def test_the_hash_is_of_all_weights(saved, copied):
    assert encoder_hash(saved(bart)) == sha256(saved(bart) / "model.safetensors")
    folder = copied(bart)
    (folder / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(saved(bart)).save_pretrained(folder, max_shard_size="4KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    expected = Encoder.load(saved(bart), CPU).encode(TITLES)
    np.testing.assert_array_equal(Encoder.load(folder, CPU).encode(TITLES), expected)
    hashes = {encoder_hash(folder)}
    for shard in shards:
        shard.write_bytes(shard.read_bytes()[:-1] + b"x")
        hashes.add(encoder_hash(folder))
    assert len(hashes) == len(shards) + 1


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["vocab.json", "merges.txt"], ["vocab.json", "merges.txt"]),  # RoBERTa, GPT-2, BART
        (["sentencepiece.bpe.model", "tokenizer.json"], ["sentencepiece.bpe.model", "tokenizer.json"]),  # XLM-RoBERTa
        (["spiece.model", "generation_config.json"], ["spiece.model"]),  # T5
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"],) * 2,
        (["vocab.txt", "special_tokens_map.json"],) * 2,  # BERT
    ],
)
def test_the_hub_is_asked_for_weights_and_tokenizer_alone(more, wanted):
    """Of a repository's files, weights in a format that is not read are left out."""
    always = ["config.json", "model.safetensors", "tokenizer_config.json"]
    others = ["README.md", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "64.tflite"]
    files = [*always, *others, "onnx/model.onnx", "training_args.bin", *more]
    assert sorted(filter_repo_objects(files, allow_patterns=FILES)) == sorted([*always, *wanted])


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", b"half"]
)
def test_damaged_weights_are_refused(copied, content):
    """They are empty, a Git LFS pointer, or truncated."""
    weights = copied(roberta) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100] if content == b"half" else content)
    with pytest.raises(UserError, match="is not a usable encoder"):
        Encoder.load(weights.parent, CPU)


def test_weights_that_are_not_there_are_never_drawn(copied):
    """The config has one layer more than the file; transformers alone would fill it with random numbers."""
    folder = copied(roberta)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lacks weights that its config.json names, such as encoder.layer.2"):
        Encoder.load(folder, CPU)


def test_a_tokenizer_of_another_model_is_refused(copied, saved):
    folder = copied(xlm_roberta)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(saved(roberta) / name, folder / name)
    with pytest.raises(UserError, match="the tokenizer has more tokens than the model"):
        Encoder.load(folder, CPU)


def test_a_model_that_needs_pictures_is_refused(copied):
    folder = copied(gpt2)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    picture = text | {"image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(text_config=text | {"vocab_size": 300}, vision_config=picture, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    with pytest.raises(UserError, match="is not a usable encoder"):
        Encoder.load(folder, CPU)


def test_code_in_the_folder_is_not_run(copied, tmp_path):
    folder = copied(roberta)
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n", encoding="utf-8")
    config = {"model_type": "own", "auto_map": dict.fromkeys(("AutoConfig", "AutoModel"), "code.Own")}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="is not a usable encoder"):
        Encoder.load(folder, CPU)
    assert not (tmp_path / "made").exists()


# --- unknown tokens ------------------------------------------------------------------------------


def notes_on(encoder: Encoder, titles: list[str]) -> list[str]:
    """The notes that the user sees when these titles are encoded."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Note)
        encoder.encode(titles)
    return [str(one.message) for one in caught if issubclass(one.category, Note)]


def test_titles_that_the_default_encoder_can_not_read_are_noted(real_encoder):
    encoder = Encoder.load(real_encoder, CPU)
    (text,) = notes_on(encoder, CHINESE)
    assert "that the encoder does not know" in text and "--encoder sentence-transformers/paraphrase" in text
    assert not notes_on(encoder, FRENCH) and not notes_on(encoder, ["Star Wars (1977)", "Toy Story (1995)"])


def test_the_note_gives_the_share_of_titles_with_unknown_words(tiny_encoder):
    encoder = Encoder.load(tiny_encoder, CPU)
    (text,) = notes_on(encoder, ["电影 (1999) film film film", "film"])  # however many known words are beside it
    assert text.startswith("50% of the texts have words that the encoder does not know")
    assert not notes_on(encoder, ["电", *["film"] * 4])  # exactly a fifth raises no note
    assert not notes_on(encoder, [""]) and not notes_on(encoder, FRENCH)


@every_family
def test_bytes_are_never_unknown(saved, family):
    notes = notes_on(Encoder.load(saved(family), CPU), ["电影", "", "影"])
    assert len(notes) == (family in (t5, xlm_roberta))
