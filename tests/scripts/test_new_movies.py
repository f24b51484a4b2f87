"""From a metadata file to lists with new movies, by the user's own commands."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import SMALL, recommend_here, train_here

from Models.checkpoint import load_model
from Models.inference.new_movies import add_new_movies, block_of, read_new_movies
from utils.columns import Column
from utils.features import read_features
from utils.files import Note, UserError
from utils.readers import read_dataset

METADATA = "movieId,director,runtime,mood:category,plot:text\n" + "".join(
    f"{k * 7 + 2},{'Ann|Bo' if k % 3 else 'Bo'},{80 + k},{'dark' if k % 2 else 'light'},film number {k}\n"
    for k in range(20)
)
NEW = """movieId,title,year,genres,director,mood:category
n1,Film number 30,1990,drama|Horror,Ann,dark
1000,Other film (1991),,Comedy,Cyd,
-7,,,,,
"""


@pytest.fixture(scope="module")
def known(tiny, tiny_encoder, tmp_path_factory):
    """The flags of the small data set, with features made from a metadata file by the user's command; and a folder."""
    from helpers import run_command

    folder = tmp_path_factory.mktemp("known")
    (folder / "meta.csv").write_text(METADATA, encoding="utf-8")
    (folder / "new.csv").write_text(NEW, encoding="utf-8")
    flags = ("--data", tiny, "--features", folder / "f.pkl", "--encoder", tiny_encoder)
    done = run_command("utils/BERT.py", *flags, "--metadata", folder / "meta.csv")
    assert "director: 2 names, known for 20 movies" in done.stdout and "plot: text, known for 20 movies" in done.stdout
    assert "is current" in run_command("utils/BERT.py", *flags, "--metadata", folder / "meta.csv").stdout
    return ("--data", tiny, "--features", folder / "f.pkl"), folder


@pytest.fixture(scope="module")
def runs(known):
    """A function that gives a run of the named preset, trained on first use."""
    places, folder = known
    made = {}

    def run(preset: str):
        if preset not in made:
            flags = ("--run", folder / preset, "--preset", preset, "--epochs", 1, *SMALL[preset])
            made[preset] = train_here(*places, *flags)
        return made[preset]

    return run


def test_the_pickles_keep_their_form_and_the_blocks_lie_beside_them(known, tiny):
    (*_, features), folder = known
    found = read_features(features, read_dataset(tiny).movies)
    assert found.vectors.shape == (27, 12)  # title and genres, as without a metadata file
    names = {block.name: block for block in found.columns}
    assert list(names) == ["director", "runtime", "mood", "plot"]
    assert names["director"].vocabulary == ("Ann", "Bo")
    assert names["director"].values[:4].toarray().tolist() == [[0, 1], [1, 1], [1, 1], [0, 1]]
    assert (
        np.isnan(names["runtime"].values[-1]) and names["plot"].values[0].any() and not names["plot"].values[-1].any()
    )
    info = json.loads((folder / "f.json").read_text())
    assert info["blocks"] == {"director": "names", "runtime": "number", "mood": "category", "plot": "text"}


def test_a_damaged_blocks_file_is_named(known, tiny, tmp_path):
    (*_, features), _ = known
    for path in features.parent.glob("f*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    blocks = tmp_path / "f_blocks.npz"
    for damage in (lambda: blocks.write_bytes(blocks.read_bytes()[:-1]), blocks.unlink):
        damage()
        with pytest.raises(UserError, match=r"f_blocks\.npz is missing or not the file that was written with"):
            read_features(tmp_path / "f.pkl", read_dataset(tiny).movies)


@pytest.mark.parametrize("preset", list(SMALL))
def test_new_movies_stand_in_lists_under_their_own_ids(runs, known, preset):
    folder = known[1]
    flags = ("--run", runs(preset), "--user", 4, "--top-n", 100, "--format", "json")
    before = json.loads(recommend_here(*flags).splitlines()[-1])["movies"]
    with pytest.warns(Note, match=r"3 new movies; the run knows 2 of 3 genres(, 1 of 2 director, 1 of 1 mood)?\."):
        found = json.loads(recommend_here(*flags, "--new-movies", folder / "new.csv").splitlines()[-1])["movies"]
    new = {movie["id"]: movie for movie in found if movie.get("new")}
    assert set(new) == {"n1", 1000, "-7"} and new["n1"]["title"] == "Film number 30 (1990)"
    assert {movie["id"] for movie in found} - set(new) == {movie["id"] for movie in before}
    score = "score" if "score" in found[0] else "prediction"
    assert all(np.isfinite(movie[score]) for movie in found)


@pytest.mark.parametrize("preset", ["ncf", "ncf-ranking", "transformer", "history"])
def test_the_scores_of_the_others_stay(runs, known, preset):
    """This holds for models that are not solved anew."""
    folder, run = known[1], runs(preset)
    saved = load_model(run / "best.pt", torch.device("cpu"))
    with pytest.warns(Note, match="3 new movies"):
        more = add_new_movies(saved, run, read_new_movies(folder / "new.csv"), torch.device("cpu"))
    history = saved.ratings.history.pad(torch.arange(6))
    with torch.inference_mode():
        torch.testing.assert_close(more.model.score(history)[:, :27], saved.model.score(history), atol=1e-4, rtol=1e-4)
    assert more.ids.movie_ids[:27] == saved.ids.movie_ids and more.ids.n_new == 3


@pytest.mark.filterwarnings("ignore::utils.files.Note")
@pytest.mark.parametrize("preset", ["ncf", "history"])
def test_a_new_movie_is_as_uncertain_as_its_prior(runs, known, preset):
    saved = load_model(runs(preset) / "best.pt", torch.device("cpu"))
    new = read_new_movies(known[1] / "new.csv")
    more = add_new_movies(saved, runs(preset), new, torch.device("cpu"))
    variance, prior = more.model.movies.variance(), saved.model.movies.prior_variance()
    torch.testing.assert_close(variance[27:], prior.expand(3, -1))
    torch.testing.assert_close(variance[:27], saved.model.movies.variance())


@pytest.mark.filterwarnings("ignore::utils.files.Note")
def test_a_new_movie_gets_its_score_whatever_else_is_new(runs, known, tmp_path):
    """Known movies keep theirs, too."""
    one, many = tmp_path / "one.csv", tmp_path / "many.csv"
    lines = NEW.splitlines()
    one.write_text("\n".join(lines[:2]) + "\n")
    many.write_text("\n".join([*lines, *(f"m{k},Film number {k},1990,War,Bo,light" for k in range(40))]) + "\n")
    run, found = runs("content"), []
    for path in (one, many):
        saved = load_model(run / "best.pt", torch.device("cpu"))
        more = add_new_movies(saved, run, read_new_movies(path), torch.device("cpu"))
        with torch.inference_mode():
            found.append(more.model.score(saved.ratings.history.pad(torch.arange(6)))[:, :28])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        before = saved.model.score(saved.ratings.history.pad(torch.arange(6)))
    torch.testing.assert_close(found[0][:, :27], before, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::utils.files.Note")
def test_filters_similar_movies_and_predictions_know_new_ones(runs, known):
    flags = ("--run", runs("content"), "--new-movies", known[1] / "new.csv")
    text = recommend_here(*flags, "--user", 4, "--candidates", "n1,1000", "--predictions-from", runs("ncf"))
    assert re.search(r" n1  Film number 30 \(1990\) +-?[\d.]+ +[\d.]+  drama, Horror  \(new\)\n", text)
    assert "1000" in recommend_here(*flags, "--similar-to", "n1", "--candidates", 1000).splitlines()[-1]
    assert "Top 1 recommended movie IDs for user 4: ['n1']" in recommend_here(*flags, "--user", 4, "--genres", "Horror")
    rows = recommend_here(*flags, "--user", 4, "--candidates", "n1", "--format", "csv").splitlines()
    assert rows[1].startswith("4,1,n1,Film number 30 (1990),")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("movieId,title\n9,Twin\n", "movie 9 is in tiny already: give new movies ids of their own"),
        ("movieId,title\nx,One\nx,Two\n", "movie x is listed twice"),
        ("movieId,genres\nx,Drama\n", "has no column of titles"),
        ("title,genres\nHeat,Drama\n", "names no column of movie ids"),
        ("movieId,title\n", "has no movie below its header"),
        ("movieId,title,mood:text\nx,One,dark\n", "mood is of the kind text, in the run category"),
        ("movieId,title,runtime:names\nx,One,dark\n", "runtime is of the kind names, in the run number"),
    ],
)
def test_what_can_not_be_new_is_a_sentence(runs, tmp_path, content, message):
    (tmp_path / "new.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        recommend_here("--run", runs("content"), "--new-movies", tmp_path / "new.csv")


def test_another_encoder_is_refused(runs, known, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for path in runs("ncf").iterdir():
        (run / path.name).write_bytes(path.read_bytes())
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(re.sub('"encoder_sha256": "[0-9a-f]+"', '"encoder_sha256": "0"', text))
    with pytest.raises(UserError, match="is not the run's"):
        recommend_here("--run", run, "--new-movies", known[1] / "new.csv")


def test_a_name_as_it_is_written_comes_before_its_other_spellings():
    vocabulary = ("Prince", "prince", "Bo")
    scale = SimpleNamespace(name="cast", kind="names", vocabulary=vocabulary)
    column = Column("cast", "names", [("Prince",), ("prince",), ("BO",), ("Nobody",)])
    found = block_of(column, scale, 4, None, "mean").values.toarray().tolist()
    assert found == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


# --- the audience of a movie ---------------------------------------------------------------------


def test_the_audience_are_the_users_with_the_highest_predictions(runs):
    run = runs("ncf")
    saved = load_model(run / "best.pt", torch.device("cpu"))
    found = json.loads(recommend_here("--run", run, "--audience-of", 9, "--format", "json").splitlines()[-1])
    movie, known = saved.ids.movie_ids.index(9), saved.ratings.history
    with torch.inference_mode():
        scores = saved.model.score(known.pad(torch.arange(30)))[:, movie].clamp(1, 5)
    raters = set(known.users()[known.movie == movie].tolist())
    others = sorted((u for u in range(30) if u not in raters), key=lambda u: -float(scores[u]))[:10]
    assert [one["id"] for one in found["users"]] == [saved.ids.user_ids[u] for u in others] and found["movie"] == 9
    assert found["users"][0]["prediction"] == pytest.approx(float(scores[others[0]]), abs=1e-4)


@pytest.mark.filterwarnings("ignore::utils.files.Note")
def test_the_audience_of_a_new_movie_of_a_model_that_ranks(runs, known):
    flags = ("--run", runs("content"), "--new-movies", known[1] / "new.csv", "--audience-of", "n1", "--top-n", 4)
    text = recommend_here(*flags)
    assert text.splitlines()[0].split() == ["rank", "user", "probability"]
    assert re.search(r"Top 4 user IDs for movie n1: \[\d+, \d+, \d+, \d+\]", text)
    rows = recommend_here(*flags, "--format", "csv").splitlines()
    values = [float(row.split(",")[3]) for row in rows[1:]]
    assert rows[0] == "movieId,rank,userId,probability" and values == sorted(values, reverse=True)
    assert values[-1] > 0 and values[0] < 1
    assert len(recommend_here(*flags, "--format", "ids").split()) == 4


def test_no_audience_of_a_movie_that_is_not_there(runs):
    with pytest.raises(UserError, match="tiny has no movie n1"):
        recommend_here("--run", runs("content"), "--audience-of", "n1")
