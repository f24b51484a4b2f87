"""Features: the form of the pickles, equality with plain encoding, and refusal of what does not fit."""

import json
import pickle
import socket

import numpy as np
import pytest
import torch
from helpers import Evil, tiny_ratings, write_dat

from utils import BERT, download, encoder
from utils.encoder import Encoder, encoder_hash, find_encoder
from utils.features import read_features
from utils.files import UserError
from utils.pickles import read_pickle
from utils.readers import read_dataset

CPU = torch.device("cpu")


# --- what is written -----------------------------------------------------------------------------


def test_the_pickles_have_the_form_of_the_original(tiny, tiny_features):
    vectors = pickle.loads(tiny_features.read_bytes())
    genres = pickle.loads((tiny_features.parent / "genre2idx.pkl").read_bytes())
    assert list(vectors) == read_dataset(tiny).movies["movie"].tolist()  # never-rated ones too
    assert all(vector.shape == (8 + 4,) and vector.dtype == np.float32 for vector in vectors.values())
    assert genres == {"Comedy": 0, "Drama": 1, "Musical": 2, "War": 3}
    assert vectors[163][8:].tolist() == [0, 1, 1, 0]
    assert vectors[901][8:].tolist() == [0, 0, 0, 0]  # (no genres listed)
    info = json.loads(tiny_features.with_suffix(".json").read_text())
    assert (info["bert_dim"], info["n_movies"], info["dataset"], info["pooling"]) == (8, 27, "tiny", "mean")


def test_changed_titles_damage_or_pooling_make_them_anew(tiny_encoder, tmp_path, monkeypatch, capsys):
    data, features = write_dat(tmp_path / "ml", tiny_ratings()), tmp_path / "f" / "movie_bert_dict.pkl"

    def is_remade(*more: str) -> bool:
        flags = ("--data", data, "--encoder", tiny_encoder, "--features", features, *more)
        monkeypatch.setattr("sys.argv", ["BERT.py", *map(str, flags)])
        BERT.main()
        return "Wrote" in capsys.readouterr().out

    assert is_remade() and not is_remade()
    first = read_pickle(features)
    text = (data / "movies.dat").read_text(encoding="latin-1").replace("Film number 3 ", "Other film ")
    (data / "movies.dat").write_text(text, encoding="latin-1")
    assert is_remade() and not is_remade()
    second = read_pickle(features)
    assert [movie for movie in first if not np.allclose(first[movie], second[movie], atol=1e-6)] == [3 * 7 + 2]
    features.write_bytes(features.read_bytes()[:-1])
    assert is_remade() and not is_remade()
    assert is_remade("--pooling", "cls") and is_remade("--pooling", "cls", "--precision", "bfloat16")


# --- encoders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_batches_give_what_single_titles_give_and_zeros_for_empty_ones(tiny_encoder, pooling):
    encoder = Encoder.load(tiny_encoder, CPU)
    titles = ["Film number 3", "A (1999)", "Misérables, Les (1995)", "x" * 3000, "", "Film number 3"]
    vectors = encoder.encode(titles, pooling, batch_size=4)
    with torch.inference_mode():
        for title, vector in zip(titles, vectors, strict=True):
            tokens = encoder.tokenizer(title, return_tensors="pt", truncation=True, max_length=512)
            states = encoder.model(**tokens).last_hidden_state[0]
            expected = states.mean(0) if pooling == "mean" else states[0]
            np.testing.assert_allclose(vector, expected.numpy() if title else np.zeros(8), atol=1e-5)


def test_the_default_encoder_understands_titles(real_encoder):
    assert encoder_hash(real_encoder) == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    encoder = Encoder.load(real_encoder, CPU)
    space, more_space, romance = encoder.encode(["Star Wars (1977)", "Star Trek (1979)", "Romeo and Juliet (1968)"])
    assert space.shape == (384,)
    assert space @ more_space > space @ romance


def test_a_folder_without_a_model_is_no_encoder(tiny, tmp_path):
    with pytest.raises(UserError, match=r"no \*.safetensors weights"):
        encoder_hash(tiny)
    with pytest.raises(UserError, match="is not a usable encoder"):
        Encoder.load(tmp_path, CPU)


def test_offline_only_this_machine_is_searched(monkeypatch, tmp_path):
    monkeypatch.setattr(encoder, "PACKAGED", tmp_path / "packaged")
    monkeypatch.setattr(encoder, "hub_answers", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(UserError, match="--offline downloads nothing"):
        find_encoder("some-model-that-is-not-cached", offline=True)


def test_a_hub_that_never_answers_is_given_up_soon(monkeypatch):
    """A listening socket that nobody serves: the hub's own client would try it for more than ten minutes."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(download, "CONNECT_SECONDS", 1)
        with pytest.raises(UserError, match="the hub can't be reached"):
            find_encoder("some-model-that-is-not-cached")


# --- what is read --------------------------------------------------------------------------------


def test_features_of_other_data_are_refused(tiny, tiny_features, tmp_path):
    movies = read_dataset(tiny).movies
    assert read_features(tiny_features, movies).vectors.shape == (27, 12)
    more = movies.assign(movie=movies["movie"] + 10_000)
    with pytest.raises(UserError, match=r"lacks 27 movies \(10002, 10009, .*utils/BERT.py"):
        read_features(tiny_features, more)
    with pytest.raises(UserError, match="other movies, titles or genres"):
        read_features(tiny_features, movies.assign(title="Another"))
    with pytest.raises(UserError, match="There is no features file"):
        read_features(tmp_path / "none.pkl", movies)


def test_features_stand_in_the_order_of_the_movies(tiny, tiny_features):
    movies = read_dataset(tiny).movies
    vectors = read_pickle(tiny_features)
    expected = np.stack([vectors[movie] for movie in movies["movie"]])
    np.testing.assert_array_equal(read_features(tiny_features, movies).vectors, expected)


def test_features_that_are_not_what_their_description_says_are_refused(tiny, tiny_features, tmp_path):
    movies = read_dataset(tiny).movies
    copy = tmp_path / "f.pkl"
    copy.write_bytes(tiny_features.read_bytes())
    with pytest.raises(UserError, match="no description"):
        read_features(copy, movies)
    copy.with_suffix(".json").write_text(tiny_features.with_suffix(".json").read_text())
    copy.write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="not the file"):
        read_features(copy, movies)


@pytest.mark.parametrize("put", [lambda evil: evil, lambda evil: {1: evil}, lambda evil: [np.zeros(2), evil]])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, put):
    path, folder = tmp_path / "evil.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps(put(Evil(folder))))
    with pytest.raises(UserError, match="code, not data"):
        read_pickle(path)
    assert not folder.exists()
    pickle.loads(path.read_bytes())
    assert folder.exists()


def test_a_pickle_of_other_objects_is_refused(tmp_path):
    path = tmp_path / "generator.pkl"
    path.write_bytes(pickle.dumps(np.random.default_rng(0)))
    with pytest.raises(UserError, match="code, not data"):
        read_pickle(path)


@pytest.mark.parametrize("protocol", [4, 5])
def test_pickles_of_plain_data_are_read(tmp_path, protocol):
    value = {1: np.arange(3, dtype=np.float32), "b": [1, 2.5, None, ("x",)], 3: np.float32(0.5)}
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    read = read_pickle(path)
    np.testing.assert_array_equal(read.pop(1), value.pop(1))
    assert read == value
