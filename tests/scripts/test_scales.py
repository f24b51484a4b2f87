"""Ratings on any scale, and choices without ratings, through the user's commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL, recommend_here, rows_of, test_metrics, tiny_ratings, train_here, write_dat

from Models.checkpoint import load_model
from Models.configs import PRESETS
from utils.files import Note, UserError
from utils.readers import read_dataset

RATING_PRESETS = [name for name, config in PRESETS.items() if not config.ranking]
RANKING_PRESETS = [name for name, config in PRESETS.items() if config.ranking]


def trained(tmp_path_factory, features: Path, preset: str, name: str, change) -> Path:
    """A small training on ratings changed by this function."""
    folder = tmp_path_factory.mktemp("scales")
    write_dat(folder / "tiny", [(u, m, change(r), t) for u, m, r, t in tiny_ratings()])
    places = ("--data", folder / "tiny", "--features", features, "--run", folder / name)
    return train_here(*places, "--preset", preset, "--epochs", 2, *SMALL[preset])


@pytest.fixture(scope="module", params=PRESETS)
def plain(request, tiny_features, tmp_path_factory) -> tuple[str, Path]:
    """A preset, and its training on the ratings from 1 to 5."""
    return request.param, trained(tmp_path_factory, tiny_features, request.param, "plain", lambda r: r)


@pytest.mark.parametrize(
    ("factor", "shift"),
    [(2, 0), (20, 0), (0.2, 0), (25, -25), (5, -15)],
    ids=["2-10", "20-100", "0.2-1", "0-100", "+-10"],
)
def test_predictions_and_lists_are_the_same_on_every_scale(plain, tiny_features, tmp_path_factory, factor, shift):
    """Scaling and shifting every rating does the same to every prediction; nothing else depends on the scale."""
    preset, run = plain
    other = trained(tmp_path_factory, tiny_features, preset, "scaled", lambda r: r * factor + shift)
    metrics, scaled = test_metrics(run), test_metrics(other)
    if preset in RANKING_PRESETS:
        assert scaled["relevance_threshold"] == pytest.approx(4 * factor + shift)
        assert scaled["ndcg@10"] == pytest.approx(metrics["ndcg@10"], rel=1e-5)
        ids = [[row["movieId"] for row in rows_of(one / "test_topn.csv")] for one in (run, other)]
        assert np.mean(np.array(ids[0]) == np.array(ids[1])) > 0.99  # near-ties may change places
    else:
        assert scaled["rmse"] == pytest.approx(metrics["rmse"] * factor, rel=1e-4)
        assert scaled["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
        found = [[float(row["prediction"]) for row in rows_of(one / "test_predictions.csv")] for one in (run, other)]
        np.testing.assert_allclose(np.array(found[0]) * factor + shift, found[1], rtol=1e-4, atol=1e-3 * factor)
    whom = ("--user", 4) if preset == "original" else ("--liked", "2,9")  # the original serves no new users
    lists = [json.loads(recommend_here("--run", one, *whom, "--format", "json")) for one in (run, other)]
    assert [movie["id"] for movie in lists[0]["movies"]] == [movie["id"] for movie in lists[1]["movies"]]


def test_the_default_threshold_is_a_share_of_the_scale_and_in_the_protocol(tiny_features, tmp_path_factory):
    run = trained(tmp_path_factory, tiny_features, "autoencoder", "run", lambda r: 25 * (r - 1))
    assert test_metrics(run)["relevance_threshold"] == 75
    assert "relevance threshold: 75" in test_metrics(run)["protocol"]


def test_new_ratings_are_read_on_the_scale_of_the_data(tiny_features, tmp_path_factory, tmp_path):
    """A rating of 80 on a scale from 20 to 100 says the same as one of 4 on a scale from 1 to 5."""
    found = []
    for name, factor in (("plain", 1), ("scaled", 20)):
        run = trained(tmp_path_factory, tiny_features, "history", name, lambda r, factor=factor: r * factor)
        path = tmp_path / f"{name}.csv"
        path.write_text(
            "userId,movieId,rating\n" + "".join(f"me,{m},{r * factor}\n" for m, r in ((2, 4), (9, 1), (16, 5)))
        )
        movies = json.loads(recommend_here("--run", run, "--ratings", path, "--format", "json"))["movies"]
        found.append([movie["prediction"] / factor for movie in movies])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


# --- choices -------------------------------------------------------------------------------------


@pytest.fixture(params=["equal ratings", "no ratings"])
def choices(request, tmp_path) -> Path:
    """The small data set without ratings, in one of the two ways to write it."""
    folder = write_dat(tmp_path / "tiny", [(u, m, 1, t) for u, m, _, t in tiny_ratings()])
    if request.param == "no ratings":
        (folder / "ratings.dat").unlink()
        rows = "".join(f"{u},{m},{t}\n" for u, m, _, t in tiny_ratings())
        (folder / "ratings.csv").write_text("userId,movieId,timestamp\n" + rows)
        movies = [line.split("::") for line in (folder / "movies.dat").read_text(encoding="latin-1").splitlines()]
        (folder / "movies.dat").unlink()
        table = "".join(f'{movie},"{title}",{genres}\n' for movie, title, genres in movies)
        (folder / "movies.csv").write_text("movieId,title,genres\n" + table, encoding="utf-8")
    return folder


@pytest.mark.parametrize("preset", RANKING_PRESETS)
def test_choices_train_every_preset_that_ranks(choices, tiny_features, tmp_path, preset):
    places = ("--data", choices, "--features", tiny_features, "--run", tmp_path / "run")
    run = train_here(*places, "--preset", preset, "--epochs", 2, *SMALL[preset])
    metrics = test_metrics(run)
    assert metrics["relevance_threshold"] == 1  # every choice is relevant, so all tested users count:
    assert metrics["users"] == len(np.unique(np.random.default_rng(42).permutation(360)[:72] // 12))
    assert 0 < metrics["ndcg@10"] < 1
    movies = json.loads(recommend_here("--run", run, "--format", "json"))["movies"]
    assert len(movies) == 10 and all(movie.keys() == {"id", "title", "genres", "score"} for movie in movies)


@pytest.mark.parametrize("preset", RATING_PRESETS)
def test_choices_are_refused_where_ratings_are_predicted(choices, tiny_features, tmp_path, preset):
    places = ("--data", choices, "--features", tiny_features, "--run", tmp_path / "run")
    with pytest.raises(
        UserError, match=r"All training ratings of tiny are equal.*take a preset that ranks.*autoencoder"
    ):
        train_here(*places, "--preset", preset, "--epochs", 2, *SMALL[preset])
    assert not (tmp_path / "run").exists()


def test_likes_and_dislikes_are_ratings(tiny_features, tmp_path_factory):
    """Both kinds of preset make sense for ratings of 0 and 1."""
    run = trained(tmp_path_factory, tiny_features, "ncf", "run", lambda r: int(r > 3))
    scale = load_model(run / "best.pt", torch.device("cpu")).model.stats.scale
    assert (scale.low, scale.high) == (0, 1) and 0.2 < test_metrics(run)["rmse"] < 0.7


def test_repeated_choices_count_once(tiny, tiny_features, tmp_path):
    """The newest of each user and movie counts, whatever the order of the file."""
    rows = [(u, m, t) for u, m, _, t in tiny_ratings()]
    later = [(u, m, t + 10**6) for u, m, t in rows[::3]]
    folder = tmp_path / "tiny"
    folder.mkdir()
    text = "".join(f"{u},{m},{t}\n" for u, m, t in later + rows)
    (folder / "ratings.csv").write_text("userId,movieId,timestamp\n" + text)
    movies = [line.split("::")[:2] for line in (tiny / "movies.dat").read_text(encoding="latin-1").splitlines()]
    (folder / "movies.csv").write_text("movieId,title\n" + "".join(f'{m},"{t}"\n' for m, t in movies), encoding="utf-8")
    with pytest.warns(Note, match="of 480 choices, 360 are kept, the newest of each user and movie"):
        ratings = read_dataset(folder).ratings
    expected = {(u, m): t for u, m, t in rows} | {(u, m): t for u, m, t in later}
    assert {(u, m): t for u, m, t in zip(ratings["user"], ratings["movie"], ratings["time"], strict=True)} == expected


# --- a named scale -------------------------------------------------------------------------------


def test_a_named_scale_holds_whatever_ratings_there_are(tiny_features, tmp_path):
    """With 0 to 10 named for ratings of 1 to 5, predictions may lie outside 1 to 5 and the threshold is on 0 to 10."""
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    places = ("--data", folder, "--features", tiny_features, "--scale", 0, 10, "--epochs", 1)
    run = train_here(
        *places, "--run", tmp_path / "run", "--preset", "autoencoder", *SMALL["autoencoder"], "--relevance-threshold", 4
    )
    final = train_here("--final", run, "--run", tmp_path / "final")
    for one in (run, final):
        scale = load_model(one / "best.pt", torch.device("cpu")).model.stats.scale
        assert (scale.low, scale.high) == (0, 10)
    with pytest.raises(UserError, match=r"No training rating is 7.5 or higher"):
        train_here(*places, "--run", tmp_path / "none", "--preset", "autoencoder", *SMALL["autoencoder"])


@pytest.mark.parametrize("scale", [(2, 5), (1, 4), (5, 1), (1, "inf"), ("nan", 5)])
def test_a_scale_without_the_ratings_is_refused(places, tmp_path, scale):
    with pytest.raises(UserError, match=r"--scale .*: the ratings are from 1 to 5; give the lowest and the highest"):
        train_here(*places, "--scale", *scale, "--run", tmp_path / "run", "--epochs", 1)


def test_a_rating_run_shows_what_the_mean_would_do(tiny_run):
    """This exposes a model that learned nothing."""
    metrics, rows = test_metrics(tiny_run), rows_of(tiny_run / "test_predictions.csv")
    split = np.random.default_rng(42).permutation(360)
    mean = np.mean([tiny_ratings()[row][2] for row in split[180:]])
    error = np.sqrt(np.mean([(float(row["rating"]) - mean) ** 2 for row in rows]))
    assert metrics["always_mean"]["rmse"] == pytest.approx(error, rel=1e-6)
