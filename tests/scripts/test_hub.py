"""A shared model: it gives the same lists as its run, and holds nothing about the people that it learned from."""

import functools
import hashlib
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import SMALL, Evil, main_here, recommend_here, test_metrics, train_here
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from Models.checkpoint import load_model
from Models.EASE import item_weights
from utils import BERT, hub
from utils.files import UserError
from utils.runs import read_checkpoint
from utils.shared_model import TENSOR

FILES = ["README.md", "config.json", "model.safetensors"]
LIKED = "2,9,16"
COMMIT = "0123456789" * 4
SECRETS = [f"person{n}@example.org" for n in range(30)]
TO_SHARE = ("ncf-ranking", "transformer", "gru")


@pytest.fixture(scope="module")
def named(tiny, tiny_encoder, tmp_path_factory) -> tuple:
    """The small data set with user ids that must stay secret."""
    folder = tmp_path_factory.mktemp("named") / "people"
    folder.mkdir()
    lines = [line.split("::") for line in (tiny / "ratings.dat").read_text().splitlines()]
    users = {user: SECRETS[k] for k, user in enumerate(dict.fromkeys(line[0] for line in lines))}
    rows = [[users[user], *others] for user, *others in lines]
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(",".join(row) + "\n" for row in rows)
    )
    movies = [line.split("::") for line in (tiny / "movies.dat").read_text(encoding="latin-1").splitlines()]
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n" + "".join(f'{movie},"{title}",{genres}\n' for movie, title, genres in movies),
        encoding="utf-8",
    )
    (folder / "users.csv").write_text("userId,gender,age\n" + "".join(f"{user},F,25\n" for user in SECRETS))
    features = folder.parent / "features.pkl"
    main_here(BERT, "--data", folder, "--encoder", tiny_encoder, "--features", features)
    return "--data", folder, "--features", features


@pytest.fixture(scope="module", params=TO_SHARE)
def pair(request, named, tmp_path_factory) -> tuple[Path, Path]:
    """A run and the folder exported from it."""
    folder = tmp_path_factory.mktemp("shared")
    flags = ("--preset", request.param, "--epochs", 3, *SMALL[request.param])
    run = train_here(*named, "--run", folder / "run", *flags)
    hub.export(run, folder / "shared")
    return run, folder / "shared"


@pytest.fixture(scope="module")
def shared(named, tmp_path_factory) -> Path:
    """A shared model of one preset."""
    folder = tmp_path_factory.mktemp("shared")
    run = train_here(*named, "--run", folder / "run", "--preset", "ncf-ranking", "--epochs", 3, *SMALL["ncf-ranking"])
    hub.export(run, folder / "model")
    return folder / "model"


@pytest.fixture
def copied(shared, tmp_path) -> Path:
    return shutil.copytree(shared, tmp_path / "copied")


@pytest.fixture
def copied_run(shared, tmp_path) -> Path:
    return shutil.copytree(shared.parent / "run", tmp_path / "run")


# --- what it gives -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [("--liked", LIKED), ("--liked", LIKED, "--explain"), ("--similar-to", 9), ("--liked", "900", "--genres", "Drama")],
)
def test_a_shared_model_gives_the_lists_of_its_run(pair, flags, monkeypatch):
    run, folder = pair
    asked = (*flags, "--format", "json", "--top-n", 6)
    assert recommend_here("--run", folder, *asked) == recommend_here("--run", run, *asked)


def test_ratings_with_times_are_served_as_by_the_run(pair, tmp_path):
    run, folder = pair
    (tmp_path / "mine.csv").write_text("movieId,rating,timestamp\n2,5,978300000\n9,4,978300600\n16,1,978900000\n")
    asked = ("--ratings", tmp_path / "mine.csv", "--format", "json")
    assert recommend_here("--run", folder, *asked) == recommend_here("--run", run, *asked)


def test_vectors_are_those_of_the_movies_alone(pair, tmp_path):
    run, folder = pair
    for name, source in (("run", run), ("shared", folder)):
        recommend_here("--run", source, "--export-vectors", tmp_path / f"{name}.npz")
    one, other = (np.load(tmp_path / f"{name}.npz") for name in ("run", "shared"))
    assert set(other.files) == {"movie_ids", "movie_vectors"}
    for name in other.files:
        np.testing.assert_array_equal(one[name], other[name])


def test_it_is_loaded_in_python_as_a_checkpoint_is(shared):
    saved = load_model(str(shared), torch.device("cpu"))
    assert saved.ids.user_ids == [] and saved.model.stats.n_users == 0 and len(saved.ratings.history.movie) == 0


def test_new_movies_take_their_place_as_in_the_run(pair, tiny_encoder, tmp_path, monkeypatch):
    """Their titles need the run's encoder, which was a local folder: a folder of that name must be there."""
    monkeypatch.chdir(tiny_encoder.parent)
    run, folder = pair
    (tmp_path / "new.csv").write_text("movieId,title,year,genres\n5000,Film number 77,1990,Drama|Comedy\n")
    asked = ("--liked", LIKED, "--new-movies", tmp_path / "new.csv", "--top-n", 30, "--format", "json")
    assert recommend_here("--run", folder, *asked) == recommend_here("--run", run, *asked)


# --- what is not in it ---------------------------------------------------------------------------


def test_nothing_of_anybody_is_in_the_files(pair):
    """No id of a user, no table with a row for each user or each rating, no demographics."""
    run, folder = pair
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not [name for name in SECRETS if name.encode() in content], path
        assert str(run.parent).encode() not in content, path  # nor paths of this machine
    sizes = {size for tensor in load_file(folder / "model.safetensors").values() for size in tensor.shape}
    known = load_model(run / "best.pt", torch.device("cpu")).ratings
    assert not sizes & {len(SECRETS), len(known.part), len(known.training().movie)}
    config = json.loads((folder / "config.json").read_text())["content"]
    assert not {"known", "user_ids", "user_features"} & {*config, *config["ids"], *config["features"]}
    assert not {"n_users", "n_user_features"} & {*config["stats"]}


@pytest.mark.parametrize(
    ("preset", "reason"),
    [
        *((preset, "has parameters for each user") for preset in ("ncf", "history", "original")),
        *((preset, "from which people's ratings can be reconstructed") for preset in ("autoencoder", "content")),
    ],
)
def test_a_model_that_would_tell_peoples_ratings_is_not_shared(places, preset, reason, tmp_path):
    run = train_here(*places, "--run", tmp_path / "run", "--preset", preset, "--epochs", 1, *SMALL[preset])
    with pytest.raises(UserError, match=f"{reason}, so it can't be shared: use a run of ncf-ranking, transformer"):
        hub.export(run, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_why_the_weights_of_ease_are_not_shared():
    """If only one person rated some movie, the weights and the penalty reveal everything that this person rated."""
    x = (np.random.default_rng(0).random((40, 12)) < 0.3).astype(np.float32)
    x[:, 1] = np.arange(40) == 7  # only user 7 rated movie 1
    weights = item_weights(sp.csr_matrix(x), penalty=5.0).double()
    scaled_gram = torch.linalg.inv(torch.eye(12).double() - weights)  # each row of X'X + penalty, times a factor
    together = scaled_gram[1] / scaled_gram[1, 1] * (1 + 5)  # the row of movie 1, with 1 + penalty on the diagonal
    np.testing.assert_allclose(np.delete(together.numpy(), 1), np.delete(x[7], 1), atol=1e-3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "This model was shared without its users"),
        (("--user", 4), "--user: this model was shared without its users"),
        (("--users", "4,7"), "--users: this model was shared"),
        (("--all-users",), "--all-users: this model was shared"),
        (("--audience-of", 9), "--audience-of: this model was shared"),
        (("--liked", 9, "--predictions-from", "x"), "--predictions-from: a shared model has no ratings"),
    ],
)
def test_it_serves_no_users_but_those_who_bring_their_history(shared, flags, words):
    with pytest.raises(UserError, match=words):
        recommend_here("--run", shared, *flags)


# --- the card ------------------------------------------------------------------------------------


def test_the_card_has_protocol_and_figures_of_the_test(pair):
    run, folder = pair
    test, card = test_metrics(run), ModelCard.load(folder / "README.md")
    assert test["protocol"] in card.text and test["preset"] in card.text
    assert f"| ndcg@10 | {test['ndcg@10']:.4f} | {test['most_popular']['ndcg@10']:.4f} |" in card.text
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["ndcg@10"] == round(test["ndcg@10"], 4) and found["hr@10"] == round(test["hr@10"], 4)
    assert "## Limits" in card.text and "The owner of the data decides" in card.text


def test_of_movielens_the_card_has_its_terms(tiny, tiny_features, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "ml-1m")
    run = train_here(
        *("--data", data, "--features", tiny_features, "--run", tmp_path / "run"),
        *("--preset", "ncf-ranking", "--epochs", 1, *SMALL["ncf-ranking"]),
    )
    hub.export(run, tmp_path / "shared")
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert "no commercial use" in card.text and card.data.license_name == "movielens"


def test_a_training_on_all_ratings_has_the_figures_of_the_run_it_was_made_from(places, tmp_path):
    flags = ("--preset", "ncf-ranking", "--epochs", 2, *SMALL["ncf-ranking"])
    tested = train_here(*places, "--run", tmp_path / "tested", *flags)
    final = train_here("--final", tested, "--run", tmp_path / "final")
    hub.export(final, tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text()
    assert f"{test_metrics(tested)['ndcg@10']:.4f}" in card and "It was trained on all ratings. The figures are" in card
    shutil.rmtree(tested)
    hub.export(final, tmp_path / "again")
    assert "no longer exists" in (tmp_path / "again" / "README.md").read_text()


# --- the command, and faults ---------------------------------------------------------------------


def test_the_command_exports_and_the_folder_is_named_as_a_run(run_script, shared, tmp_path):
    out = run_script("utils/hub.py", "export", "--run", shared.parent / "run", "--output", tmp_path / "model").stdout
    assert "without its users to" in out and sorted(path.name for path in (tmp_path / "model").iterdir()) == FILES
    lists = run_script("generate_recommendation.py", "--run", tmp_path / "model", "--liked", LIKED)
    assert lists.stdout.splitlines()[-1].startswith("Top 10 recommended movie IDs for user new: [")
    again = run_script("utils/hub.py", "export", "--run", shared.parent / "run", "--output", tmp_path / "model", code=1)
    assert again.stderr == f"error: {tmp_path / 'model'} is already there: name another folder with --output.\n"
    for path in FILES:  # two exports of a run are identical
        assert (tmp_path / "model" / path).read_bytes() == (shared / path).read_bytes()


def test_other_scripts_say_what_a_shared_model_lacks(shared):
    from resultAnalyze import report

    with pytest.raises(UserError, match="is a shared model without the ratings that are needed here"):
        main_here(report, "--run", shared)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text"])
def test_damaged_files_are_explained(copied, name, damage):
    path, content = copied / name, (copied / name).read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"nothing of the kind"}[damage])
    with pytest.raises(UserError, match=r"holds no model that can be read|is not valid JSON|holds no finished run"):
        recommend_here("--run", copied, "--liked", LIKED)


def change_of(*path, value):
    """A function that sets a value in config.json's content, or removes a key if the value is None."""

    def change(content: dict) -> None:
        for key in path[:-1]:
            content = content[key]
        if value is None and isinstance(content, dict):
            content.pop(path[-1], None)
        else:
            content[path[-1]] = value

    return change


ESCAPE = "Heat\x1b[2J"
WRONG = {
    "another class": change_of("model", value="os.system"),
    "another width": change_of("config", "embedding_dim", value=5),
    "a text as width": change_of("config", "embedding_dim", value="rm -rf"),
    "a width that would fill the memory": change_of("config", "hidden_dim", value=500_000_000),
    "a setting that is no number": change_of("config", "temperature", value=float("nan")),
    "a text as setting": change_of("config", "new_penalty", value="x"),
    "an unknown setting": change_of("config", ESCAPE, value=1),
    "fewer movies": change_of("stats", "n_movies", value=3),
    "no movies": change_of("stats", "n_movies", value=0),
    "a scale without end": change_of("stats", "scale", "high", value=float("inf")),
    "a scale that falls": change_of("stats", "scale", "high", value=-4.0),
    "a text as time": change_of("stats", "newest", value="x"),
    "a time beyond all": change_of("stats", "newest", value=10**40),
    "a gap that goes back": change_of("stats", "longest_gap", value=-5),
    "blocks of another width": change_of("stats", "blocks", 0, "width", value=9),
    "no titles": change_of("ids", "titles", value=None),
    "a title too few": lambda content: content["ids"]["titles"].pop(),
    "more than there is": change_of("ids", "n_new", value=20),
    "a list as genres": change_of("ids", "genres", 0, value=["Drama"]),
    "a title that clears the screen": change_of("ids", "titles", 0, value=ESCAPE),
    "a genre that does": lambda content: content["space"]["scales"][1]["vocabulary"].__setitem__(0, ESCAPE),
    "an id twice": lambda content: content["ids"]["movie_ids"].__setitem__(0, content["ids"]["movie_ids"][1]),
    "a year that is none": change_of("ids", "years", 0, value=10**9),
    "no state": change_of("state", value=None),
    "numbers that are not there": change_of("features", "features", value={TENSOR: "no such numbers"}),
    "other numbers": change_of("features", "features", value={TENSOR: "features.count"}),
    "a space that is none": change_of("space", value=5),
    "words too few": lambda content: content["space"]["scales"][1]["vocabulary"].pop(),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_config_of_another_form_or_of_other_numbers_is_refused(copied, change):
    """In one sentence, without control characters for the terminal."""
    config = json.loads((copied / "config.json").read_text())
    change(config["content"])
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"does not fit this code|holds no model that can be read") as refused:
        recommend_here("--run", copied, "--liked", LIKED, "--explain")
    assert "\x1b" not in str(refused.value)


def test_a_config_that_never_ends_is_refused(copied):
    (copied / "config.json").write_text('{"content":' * 100_000)
    with pytest.raises(UserError, match=r"is not valid JSON|holds no model that can be read"):
        recommend_here("--run", copied, "--liked", LIKED)


@pytest.mark.parametrize("name", ["features.features", "features.count", "features.year"])
def test_features_of_other_movies_or_types_are_refused(copied, name):
    numbers = load_file(copied / "model.safetensors")
    for wrong in (numbers[name][:5], numbers[name][:1], numbers[name].double()):
        save_file(numbers | {name: wrong.clone()}, copied / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match="its features are"):
            recommend_here("--run", copied, "--liked", LIKED)


def test_nothing_that_is_loaded_is_executed(copied, tmp_path):
    """A pickle takes the place of the numbers; reading it would create a file."""
    torch.save({"state": Evil(tmp_path / "executed")}, copied / "model.safetensors")
    with pytest.raises(UserError, match="holds no model that can be read"):
        recommend_here("--run", copied, "--liked", LIKED)
    assert not (tmp_path / "executed").exists()


def test_numbers_that_are_not_finite_are_refused(copied):
    numbers = load_file(copied / "model.safetensors")
    numbers["state.ids"] = torch.full_like(numbers["state.ids"], torch.nan)
    save_file(numbers, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite"):
        recommend_here("--run", copied, "--liked", LIKED)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "NaN", "-Infinity", "1e300"])
def test_numbers_too_large_for_any_model_are_refused(copied, number):
    text = (copied / "config.json").read_text(encoding="utf-8")
    changed = re.sub(r'"mean_rating": [0-9.]+', f'"mean_rating": {number}', text)
    assert changed != text
    (copied / "config.json").write_text(changed, encoding="utf-8")
    with pytest.raises(UserError, match="a number is not finite, or too large"):
        recommend_here("--run", copied, "--liked", LIKED)


def test_what_a_title_holds_of_control_characters_becomes_blanks(tiny_features, tiny, tiny_encoder, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "films")
    (data / "movies.dat").write_bytes((data / "movies.dat").read_bytes().replace(b"Film number 3 ", b"Film\tnumber 3 "))
    features = tmp_path / "features.pkl"
    main_here(BERT, "--data", data, "--encoder", tiny_encoder, "--features", features)
    flags = ("--run", tmp_path / "run", "--preset", "ncf-ranking", "--epochs", 1, *SMALL["ncf-ranking"])
    hub.export(train_here("--data", data, "--features", features, *flags), tmp_path / "shared")
    titles = load_model(tmp_path / "shared", torch.device("cpu")).ids.titles
    assert "Film number 3 (1963)" in titles


def test_nobody_learns_where_an_encoder_was(shared, copied_run, tmp_path):
    """Only its name is shared, whether or not the folder still exists."""
    config = json.loads((copied_run / "config.json").read_text())
    for name in (str(tmp_path / "gone" / "my-bert"), "C:\\Users\\me\\my-bert", "my-bert/"):
        config["features"]["encoder"] = name
        (copied_run / "config.json").write_text(json.dumps(config))
        hub.export(copied_run, tmp_path / "shared")
        written = json.loads((tmp_path / "shared" / "config.json").read_text())
        assert written["features"]["encoder"] == "my-bert"
        assert "titles encoded by my-bert" in (tmp_path / "shared" / "README.md").read_text()
        shutil.rmtree(tmp_path / "shared")


@pytest.mark.parametrize("name", ["has_users", "stats", "ids"])
def test_a_run_of_another_version_is_not_exported(copied_run, tmp_path, name):
    content = read_checkpoint(copied_run / "best.pt")
    torch.save({key: value for key, value in content.items() if key != name}, copied_run / "best.pt")
    with pytest.raises(UserError, match="is damaged or of another version of this code"):
        hub.export(copied_run, tmp_path / "shared")


# --- the hub -------------------------------------------------------------------------------------


@pytest.fixture
def hub_with():
    """Starts a server that serves a folder's files to the hub's client as a model; returns its address."""
    servers = []

    def start(folder: Path, model: str, hangs_up: bool = False) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                parts = self.path.partition("?")[0].strip("/").split("/")
                if parts == [""]:
                    self.answer(200, b"the hub")
                elif hangs_up:
                    self.close_connection = True
                elif model != "/".join(parts[2:4] if parts[0] == "api" else parts[:2]):
                    self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
                elif parts[0] == "api":
                    entries = [
                        {
                            "type": "file",
                            "path": path.name,
                            "rfilename": path.name,
                            "size": path.stat().st_size,
                            "oid": COMMIT,
                        }
                        for path in folder.iterdir()
                    ]
                    whole = {"id": model, "sha": COMMIT, "siblings": entries}
                    self.answer(200, json.dumps(entries if parts[4] == "tree" else whole).encode())
                else:
                    content = (folder / parts[-1]).read_bytes()
                    etag = hashlib.sha256(content).hexdigest()
                    self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

            do_HEAD = do_POST = do_GET

            def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(code)
                for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()


def test_a_model_is_fetched_from_the_hub_and_kept(shared, hub_with, run_script, monkeypatch, tmp_path):
    """The hub's own client fetches it from a local server that answers as the hub does."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", hub_with(shared, "someone/movies"))
    script = functools.partial(run_script, "generate_recommendation.py", "--liked", LIKED, "--run")
    here = recommend_here("--run", shared, "--liked", LIKED)
    assert script("hf:someone/movies").stdout == here
    assert "error: There is no model 'someone/else'" in script("hf:someone/else", code=1).stderr
    monkeypatch.setenv("HF_ENDPOINT", hub_with(shared, "someone/movies", hangs_up=True))
    assert script("hf:someone/movies").stdout == here
    pushed = run_script("utils/hub.py", "push", "--folder", shared, "--name", "someone/movies", code=1)
    assert pushed.stderr.startswith("error: The hub refused someone/movies (")


@pytest.mark.parametrize("name", ["hf:someone/nothing", "hf:", "hf:a/b/c"])
def test_without_a_network_a_model_of_the_hub_is_not_found(name):
    with pytest.raises(UserError, match=r"There is no model"):
        hub.find_shared(name)


def test_a_push_without_a_network_or_a_model_is_explained(shared, run_script, tmp_path):
    done = run_script("utils/hub.py", "push", "--folder", shared, "--name", "someone/movies", code=1)
    assert done.stderr == "error: The Hugging Face hub can't be reached: check the network and try again.\n"
    done = run_script("utils/hub.py", "push", "--folder", tmp_path, "--name", "someone/movies", code=1)
    assert "holds no model.safetensors: make it with python utils/hub.py export." in done.stderr
    save_file({"weights": torch.ones(3)}, tmp_path / "model.safetensors")
    done = run_script("utils/hub.py", "push", "--folder", tmp_path, "--name", "someone/movies", code=1)
    assert "holds no model that can be read" in done.stderr
