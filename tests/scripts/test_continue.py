"""train.py --continue-from: a finished run's weights learn from more ratings, and nothing it had known is tested."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    RATIOS,
    SMALL,
    recommend_here,
    rows_of,
    run_command,
    states_are_equal,
    test_metrics,
    tiny_ratings,
    train_here,
    without_times,
    write_dat,
)

from Models.checkpoint import build_model, load_model
from Models.configs import PRESETS, saved_config
from Models.ratings_data import load_data, model_inputs, split_rows
from Models.Recommender import NCFConfig
from Models.training.warm_start import load_earlier, split_after, start_from
from utils.files import Note, UserError
from utils.splits import SPLITS, TRAIN, VAL

CPU = torch.device("cpu")
NEW_USERS = (0, 44, 1000)  # ids before, among and after the existing ones
LATER = [(user, 7 * m + 2, 1 + (user + m) % 5, 979_000_000 + m) for user in NEW_USERS for m in range(12)]
LATER += [(user, 900, 4, 979_000_100) for user in (1, 4, 7)]  # the first ratings of a movie


def add_ratings(folder: Path) -> None:
    with (folder / "ratings.dat").open("a") as file:
        file.writelines("::".join(map(str, row)) + "\n" for row in LATER)


def add_a_movie(folder: Path) -> None:
    """Add a movie before all others, with known genres, because the genre vectors keep their order."""
    text = (folder / "movies.dat").read_text(encoding="latin-1")
    (folder / "movies.dat").write_text("1::A First Film (1959)::War\n" + text, encoding="latin-1")


@pytest.fixture(scope="module")
def grown(tiny, tiny_encoder, tmp_path_factory) -> tuple:
    """The flags of the small data set with later ratings, three more users and one more movie."""
    folder = shutil.copytree(tiny, tmp_path_factory.mktemp("grown") / "tiny")
    add_ratings(folder)
    add_a_movie(folder)
    places = ("--data", folder, "--features", folder.parent / "movie_bert_dict.pkl")
    run_command("utils/BERT.py", *places, "--encoder", tiny_encoder)
    return places


@pytest.fixture(scope="module", params=PRESETS)
def earlier(request, places, tmp_path_factory) -> Path:
    """A finished run of each preset on the original ratings."""
    run = tmp_path_factory.mktemp(request.param) / "earlier"
    return train_here(*places, "--run", run, "--preset", request.param, "--epochs", 2, *SMALL[request.param])


# --- weights -------------------------------------------------------------------------------------


def test_weights_are_carried_over_by_id(earlier, grown):
    """Known users and movies keep their weights; new ones, and sessions, have those of a new model."""
    data = load_data(grown[1], grown[3])
    config, before = saved_config(earlier), load_earlier(earlier, data)
    old = before.saved
    torch.manual_seed(0)
    fresh = build_model(config.model, *model_inputs(data, np.arange(len(data.user)), config.features))
    model = build_model(config.model, *model_inputs(data, np.arange(len(data.user)), config.features))
    model.load_state_dict(fresh.state_dict())
    start_from(before, data, model)
    ids = {"user": (data.user_ids, old.ids.user_ids), "movie": (data.movies["movie"].tolist(), old.ids.movie_ids)}
    tables = [one.tables() for one in (model, old.model, fresh)]
    assert any(tables[0].values()) == (config.preset != "content")  # content has none
    for one, fresh_one in zip(tables[0].get("session", []), tables[2].get("session", []), strict=True):
        assert torch.equal(one, fresh_one)
    for kind in tables[0].keys() & ids.keys():
        mine, (now, then) = tables[0][kind], ids[kind]
        assert len(now) > len(then)
        for table, old_table, fresh_table in zip(mine, tables[1][kind], tables[2][kind], strict=True):
            for row, one in enumerate(now):
                known = one in then
                expected = old_table[then.index(one)] if known else fresh_table[row]
                assert torch.equal(table[row], expected), (kind, one)
    of_rows = {table.data_ptr() for kind in tables[0].values() for table in kind}
    others = [name for name, parameter in model.named_parameters() if parameter.data_ptr() not in of_rows]
    assert others and all(torch.equal(model.get_parameter(name), old.model.get_parameter(name)) for name in others)


def test_a_run_goes_on_with_more_ratings_users_and_movies(earlier, grown, tmp_path):
    run = train_here("--continue-from", earlier, *grown[:4], "--epochs", 2, "--run", tmp_path / "run")
    config, before = saved_config(run), saved_config(earlier)
    assert config.model == before.model and config.preset == before.preset and config.run.continue_from == earlier
    assert "rows moved towards training, which earlier runs knew" in test_metrics(run)["protocol"]
    assert "recommended movie IDs for user 1000" in recommend_here("--run", run, "--user", 1000)


def test_it_starts_where_the_earlier_run_was(places, tiny, tiny_features, tmp_path):
    """With a learning rate of 0, the same ratings give the same validation as the earlier run's best epoch.

    The tower of sessions is off, because their biases start anew.
    """
    towers = [tower for tower in NCFConfig().towers if tower != "sessions"]
    flags = (*SMALL["ncf"], "--preset", "ncf", "--split", "user-time", "--towers", *towers)
    run = train_here(*places, "--run", tmp_path / "run", *flags, "--epochs", 6)
    best = test_metrics(run)
    again = train_here("--continue-from", run, "--run", tmp_path / "again", "--lr", 0, "--epochs", 1)
    assert float(rows_of(again / "metrics.csv")[0]["val_rmse"]) == pytest.approx(best["val_rmse"], rel=1e-6)
    assert test_metrics(again)["rmse"] == pytest.approx(best["rmse"], rel=1e-6)


def test_the_number_of_sessions_need_not_be_that_of_before(places, tmp_path):
    """Here the tower of sessions is turned off, which leaves none."""
    run = train_here(*places, "--run", tmp_path / "run", "--preset", "ncf", *SMALL["ncf"], "--epochs", 1)
    towers = [tower for tower in NCFConfig().towers if tower != "sessions"]
    again = train_here("--continue-from", run, "--run", tmp_path / "again", "--epochs", 1, "--towers", *towers)
    assert not list(load_model(again / "best.pt", CPU).model.sessions.parameters())


# --- the split -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLITS)
def test_what_was_known_is_never_tested(places, grown, tmp_path, name):
    run = train_here(
        *places, "--run", tmp_path / "run", "--preset", "ncf", *SMALL["ncf"], "--epochs", 1, "--split", name
    )
    data = load_data(grown[1], grown[3])
    before = load_earlier(run, data)
    earlier = before.saved
    split = split_rows(data, name, RATIOS)
    found = split_after(before, data, split)
    assert sorted(np.concatenate([found.train, found.val, found.test])) == list(range(len(data.user)))
    assert found.at_once == split.at_once == (name == "time")

    history, part = earlier.ratings.history, earlier.ratings.part.numpy()
    users, movies = (np.array(ids) for ids in (earlier.ids.user_ids, earlier.ids.movie_ids))
    pairs = list(zip(users[history.users().numpy()].tolist(), movies[history.movie.numpy()].tolist(), strict=True))
    trained = {pair for pair, which in zip(pairs, part, strict=True) if which == TRAIN}
    validated = {pair for pair, which in zip(pairs, part, strict=True) if which == VAL}

    def pairs_of(rows: np.ndarray) -> set:
        ids = data.ids(data.user[rows], data.movie[rows])
        return set(zip(ids["userId"].tolist(), ids["movieId"].tolist(), strict=True))

    assert trained <= pairs_of(found.train) and not validated & pairs_of(found.test)
    assert pairs_of(found.test) <= pairs_of(split.test) and pairs_of(found.test)  # no row moves towards the test
    untouched = pairs_of(split.test) - trained - validated
    assert pairs_of(found.test) == untouched
    n_moved = int(found.protocol.split("; ")[-1].split(" rows")[0])
    assert n_moved == len((trained - pairs_of(split.train)) | (validated & pairs_of(split.test)))


def test_a_run_on_all_ratings_leaves_new_ones_to_test_and_only_those(places, grown, tmp_path):
    tested = train_here(*places, "--run", tmp_path / "tested", "--preset", "ncf", *SMALL["ncf"], "--epochs", 1)
    final = train_here("--final", tested, "--run", tmp_path / "final")
    with pytest.raises(UserError, match="knew so many ratings of tiny that none is left to test"):
        train_here("--continue-from", final, "--run", tmp_path / "none")
    run = train_here("--continue-from", final, *grown[:4], "--run", tmp_path / "run")
    rows = {(int(row["userId"]), int(row["movieId"])) for row in rows_of(run / "test_predictions.csv")}
    assert rows and rows <= {row[:2] for row in LATER}


# --- with the other flags ------------------------------------------------------------------------


def test_a_stopped_one_is_resumed_and_a_finished_one_trained_on_all_ratings(run_script, grown, places, tmp_path):
    flags = (*SMALL["ncf"], "--preset", "ncf", "--patience", 0, "--epochs", 2)
    earlier = train_here(*places, "--run", tmp_path / "earlier", *flags)
    whole = train_here("--continue-from", earlier, *grown, "--epochs", 3, "--run", tmp_path / "whole")
    stopped = train_here("--continue-from", earlier, *grown, "--epochs", 3, "--run", tmp_path / "stopped")
    for name in (
        "test_metrics.json",
        "last.pt",
        "best.pt",
        "metrics.csv",
    ):  # as if killed before its first epoch was done
        (stopped / name).unlink()
    run_script("train.py", "--resume", stopped)
    assert without_times(stopped) == without_times(whole) and states_are_equal(stopped / "best.pt", whole / "best.pt")
    final = train_here("--final", whole, "--run", tmp_path / "final")
    assert saved_config(final).run.continue_from == earlier
    assert (load_model(final / "best.pt", CPU).ratings.part == TRAIN).all()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--preset", "original"), "was trained with the preset ncf: leave --preset out"),
        (("--embedding-dim", 8), "has other sizes than that of .*run: leave its settings out"),
        (("--hidden-dim", 0), "has other sizes than that of .*run: leave its settings out"),
        (("--resume", "RUN"), "has its own configuration: leave --continue-from"),
        (("--final", "RUN"), "has its own configuration: leave --continue-from"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tiny_run, tmp_path, flags, words):
    flags = [tiny_run if word == "RUN" else word for word in flags]
    with pytest.raises(UserError, match=words):
        train_here("--continue-from", tiny_run, "--run", tmp_path / "run", *flags)


def test_a_rating_a_little_outside_the_scale_moves_nothing(tiny_run, tiny, tiny_features, tmp_path):
    """The weights have a meaning only on the scale of the earlier run."""
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    with (folder / "ratings.dat").open("a") as file:
        file.write("1000::2::0.5::979000000\n1000::9::4::979000001\n")
    flags = ("--data", folder, "--features", tiny_features, "--epochs", 1)
    with pytest.warns(Note, match="are from 0.5 to 5 and were from 1 to 5: the model keeps its scale"):
        run = train_here("--continue-from", tiny_run, *flags, "--run", tmp_path / "run")
    scale = load_model(run / "best.pt", CPU).model.stats.scale
    assert (scale.low, scale.high) == (1, 5)
    assert all(1 <= float(row["prediction"]) <= 5 for row in rows_of(run / "test_predictions.csv"))


def test_other_scales_and_features_are_refused(tiny_run, tiny, tiny_encoder, tmp_path):
    folder = write_dat(tmp_path / "scaled", [(u, m, r * 2, t) for u, m, r, t in tiny_ratings()])
    features = ("--features", tmp_path / "movie_bert_dict.pkl")
    run_command("utils/BERT.py", "--data", folder, "--encoder", tiny_encoder, *features)
    with pytest.raises(UserError, match="are from 2 to 10 and were from 1 to 5, which is another scale"):
        train_here("--continue-from", tiny_run, "--data", folder, *features, "--run", tmp_path / "run")
    run_command("utils/BERT.py", "--data", folder, "--encoder", tiny_encoder, *features, "--pooling", "cls")
    with pytest.raises(UserError, match="The pooling of the features is not that of"):
        train_here("--continue-from", tiny_run, "--data", folder, *features, "--run", tmp_path / "run")
    with pytest.raises(UserError, match="holds no finished run"):
        train_here("--continue-from", tmp_path, "--run", tmp_path / "run")
    with pytest.raises(UserError, match=r"--scale 0 5 is not the scale of .*, 1 to 5: leave it out"):
        train_here("--continue-from", tiny_run, "--scale", 0, 5, "--run", tmp_path / "run")


# --- what must never be silent -------------------------------------------------------------------


def test_ids_are_found_again_when_one_new_id_makes_all_of_them_strings(tiny_run, tiny, tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    with (folder / "ratings.dat").open("a") as file:
        file.writelines(f"x{k}::{7 * m + 2}::4::979000000\n" for k in range(4) for m in range(8))
    places = ("--data", folder, "--features", tmp_path / "tiny.pkl")
    run_command("utils/BERT.py", *places, "--encoder", tiny_encoder)
    run = train_here("--continue-from", tiny_run, *places, "--epochs", 1, "--run", tmp_path / "run")
    known = {(str(u), str(m)) for u, m, *_ in trained_pairs(tiny_run)}
    assert len(known) == 180
    assert not known & {(row["userId"], row["movieId"]) for row in rows_of(run / "test_predictions.csv")}


def trained_pairs(run: Path) -> set:
    """The (user, movie) pairs of a run's training rows, which a later run must not test."""
    saved = load_model(run / "best.pt", CPU)
    rows = saved.ratings.training()
    users, movies = rows.users().tolist(), rows.movie.tolist()
    return {(saved.ids.user_ids[u], saved.ids.movie_ids[m]) for u, m in zip(users, movies, strict=True)}


def test_what_an_earlier_run_of_the_lineage_knew_is_not_tested(tiny_run, tiny, tiny_features, tmp_path):
    """Even if its ratings were missing from the data of a run in between."""
    half = write_dat(tmp_path / "half", tiny_ratings()[::2])
    flags = ("--features", tiny_features, "--epochs", 1)
    second = train_here("--continue-from", tiny_run, "--data", half, *flags, "--run", tmp_path / "second")
    final = train_here("--final", second, "--run", tmp_path / "final")
    folder = write_dat(tmp_path / "all", [*tiny_ratings(), *LATER])
    for before in (second, final):
        flags = ("--data", folder, "--features", tiny_features, "--epochs", 1)
        third = train_here("--continue-from", before, *flags, "--run", tmp_path / f"after-{before.name}")
        tested = {(int(row["userId"]), int(row["movieId"])) for row in rows_of(third / "test_predictions.csv")}
        assert tested and not tested & (trained_pairs(tiny_run) | trained_pairs(before))
    shutil.move(second, tmp_path / "moved")
    with pytest.raises(UserError, match="holds no finished run"):
        train_here("--continue-from", tmp_path / "after-second", *flags, "--run", tmp_path / "none")


def test_a_run_that_was_made_anew_is_not_gone_on_from(places, tmp_path):
    flags = (*places, *SMALL["ncf"], "--preset", "ncf", "--epochs", 1)
    earlier = train_here(*flags, "--run", tmp_path / "earlier")
    run = train_here("--continue-from", earlier, "--run", tmp_path / "run")
    shutil.rmtree(earlier)
    train_here(*flags, "--seed", 1, "--run", earlier)
    (run / "test_metrics.json").unlink()
    with pytest.raises(UserError, match=r"earlier is not as it was when .*run continued from it"):
        train_here("--resume", run)


def test_other_movies_with_the_same_ids_are_refused(tiny_run, tiny, tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    text = (folder / "movies.dat").read_text(encoding="latin-1")
    (folder / "movies.dat").write_text(text.replace("Film number", "Another number"), encoding="latin-1")
    places = ("--data", folder, "--features", tmp_path / "tiny.pkl")
    run_command("utils/BERT.py", *places, "--encoder", tiny_encoder)
    with pytest.raises(UserError, match=r"tiny holds other movies than .* such as 'Another number 0 "):
        train_here("--continue-from", tiny_run, *places, "--run", tmp_path / "run")


@pytest.mark.parametrize("preset", ["history", "ncf"])
def test_other_demographics_are_refused_by_the_models_that_read_them(places, tiny, tiny_features, tmp_path, preset):
    flags = ("--preset", preset, *SMALL[preset], "--epochs", 1)
    run = train_here(*places, "--run", tmp_path / "earlier", *flags)
    folder = shutil.copytree(tiny, tmp_path / "tiny")
    text = (folder / "users.dat").read_text()
    (folder / "users.dat").write_text(text.replace("::F::", "::M::"))  # as many columns, with a different meaning
    with pytest.raises(UserError, match="The genders, age groups or occupations are not those of"):
        train_here("--continue-from", run, "--data", folder, "--features", tiny_features, "--run", tmp_path / "run")
    unfinished = train_here("--data", folder, "--features", tiny_features, *flags, "--run", tmp_path / "unfinished")
    (unfinished / "test_metrics.json").unlink()
    (folder / "users.dat").unlink()
    with pytest.raises(UserError, match="The ratings or users are not those"):
        train_here("--resume", unfinished)


def test_a_run_that_knew_all_rows_to_validate_is_refused(places, tiny_features, tmp_path):
    """With a split by time, all new rows are tested, and none is left to choose the epoch."""
    tested = train_here(
        *places, "--run", tmp_path / "tested", "--preset", "ncf", *SMALL["ncf"], "--epochs", 1, "--split", "time"
    )
    final = train_here("--final", tested, "--run", tmp_path / "final")
    folder = write_dat(tmp_path / "tiny", [*tiny_ratings(), *LATER])
    with pytest.raises(UserError, match="none is left to validate: add newer ones, continue from a run with a test"):
        train_here("--continue-from", final, "--data", folder, "--features", tiny_features, "--run", tmp_path / "run")
