"""groups.py: who is in which group, and figures of groups that add up to the run's."""

import numpy as np
import pandas as pd
import pytest
from helpers import SMALL, main_here, rows_of, test_metrics, train_here, write_dat

from resultAnalyze import groups
from resultAnalyze.groups import (
    age_in_words,
    found_by_movie,
    in_parts,
    movie_groups,
    ndcg_by_user,
    rmse_by,
    user_groups,
)
from resultAnalyze.run_files import Run
from utils import BERT, hub
from utils.files import UserError


@pytest.fixture(scope="module")
def people(tiny_encoder, tmp_path_factory) -> tuple:
    """200 users, men and women of two ages, and 60 movies of three decades."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("people")
    pairs = [(u, m) for u in range(200) for m in random.permutation(60)[: random.integers(6, 20)]]
    ratings = [(u + 1, m + 1, random.integers(1, 6), 978_300_000 + k) for k, (u, m) in enumerate(pairs)]
    write_dat(folder / "data", ratings)
    movies = "".join(f"{m + 1}::Film {m} ({1960 + 10 * (m % 3)})::Drama\n" for m in range(60))
    (folder / "data/movies.dat").write_text(movies)
    users = "".join(f"{u + 1}::{'FM'[u % 2]}::{[18, 35][u < 80]}::4::5\n" for u in range(200))
    (folder / "data/users.dat").write_text(users)
    main_here(BERT, "--data", folder / "data", "--encoder", tiny_encoder, "--features", folder / "f.pkl")
    return "--data", folder / "data", "--features", folder / "f.pkl"


@pytest.fixture(scope="module", params=["ncf", "ncf-ranking"])
def two_seeds(request, people, tmp_path_factory) -> list:
    folder, flags = tmp_path_factory.mktemp("runs"), ("--preset", request.param, "--epochs", 2, *SMALL[request.param])
    return [train_here(*people, "--run", folder / str(seed), "--seed", seed, *flags) for seed in (0, 1)]


def test_groups_of_users_and_movies_are_those_of_the_data(two_seeds):
    run = Run.read(two_seeds[0])
    users, movies = user_groups(run), movie_groups(run)
    assert users["gender"]["F"].tolist() == [True, False] * 100
    assert users["age"]["18 to 24"].tolist() == [False] * 80 + [True] * 120 and users["age"]["35 to 44"].sum() == 80
    assert list(movies["decade of the movie"]) == ["1960s", "1970s", "1980s"]
    assert movies["decade of the movie"]["1970s"].tolist() == [m % 3 == 1 for m in range(60)]
    for of_kind in (*users.values(), *movies.values()):
        assert (np.sum(list(of_kind.values()), axis=0) == 1).all()  # each is in exactly one group


def test_metrics_of_all_groups_together_are_the_tests(two_seeds):
    run, test = Run.read(two_seeds[0]), test_metrics(two_seeds[0])
    if run.ranks:
        assert ndcg_by_user(run).value() == pytest.approx(test["ndcg@10"])
        found = found_by_movie(run)
        assert 0 < found.value() < 1 and found.weight.sum() >= test["users"]
    else:
        assert [rmse_by(run, kind).value() for kind in ("user", "movie")] == pytest.approx([test["rmse"]] * 2, abs=1e-5)


def test_the_table_is_complete_and_goes_into_the_model_card(two_seeds, tmp_path):
    main_here(groups, "--runs", *two_seeds)
    rows = pd.DataFrame(rows_of(two_seeds[0] / "groups.csv"))
    assert set(rows["by"]) >= {"known ratings of the user", "gender", "age", "decade of the movie"}
    assert set(rows.loc[rows["by"] == "age", "group"]) >= {"18 to 24", "35 to 44"}  # and no empty group
    assert len(rows[rows["by"] == "age"]) == 3
    gender = rows[rows["by"] == "gender"].set_index("group")
    value = gender["value"].astype(float)
    worst, best = (value[["F", "M"]].idxmin(), value[["F", "M"]].idxmax())
    assert value[f"{best} less {worst}"] == pytest.approx(value[best] - value[worst])
    assert (rows["low"].astype(float) <= rows["value"].astype(float)).all()
    assert (two_seeds[0] / "groups.png").read_bytes().startswith(b"\x89PNG")
    if Run.read(two_seeds[0]).ranks:
        hub.export(two_seeds[0], tmp_path / "shared")
        card = (tmp_path / "shared" / "README.md").read_text()
        assert f"- by gender: NDCG@10 of {best} less {worst}, the widest gap of all groups" in card


def test_runs_of_other_configurations_or_the_same_seed_are_refused(two_seeds, people, tmp_path):
    other = train_here(*people, "--run", tmp_path / "other", "--epochs", 1, *SMALL["ncf"])
    with pytest.raises(UserError, match="differ by more than their seed"):
        main_here(groups, "--runs", two_seeds[0], other)
    with pytest.raises(UserError, match="have the same seed"):
        main_here(groups, "--runs", two_seeds[0], two_seeds[0])


def test_too_few_people_make_no_groups(tiny_run, tmp_path):
    with pytest.raises(UserError, match="No two groups have 20 tested users or movies"):
        main_here(groups, "--runs", tiny_run, "--output", tmp_path)


def test_parts_are_of_about_equal_size():
    count = np.random.default_rng(1).integers(1, 1000, 500)
    parts = in_parts(count)
    assert len(parts) == 5 and all(90 <= inside.sum() <= 110 for inside in parts.values())
    weight = np.where(count > 500, 9, 1)
    weighted = in_parts(count, weight)
    sums = [weight[inside].sum() for inside in weighted.values()]
    assert max(sums) / min(sums) < 1.2
    assert list(in_parts(np.full(10, 3))) == ["3 to 3"]


def test_ages_in_words():
    assert age_in_words("(17.0, 24.0]") == "18 to 24" and age_in_words("(55.0, inf]") == "56 and older"
    assert age_in_words("25-34") == "25-34" and age_in_words("(-1.0, 17.0]") == "0 to 17"
