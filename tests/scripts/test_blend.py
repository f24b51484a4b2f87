"""Several runs as one ranking: weights from validation, tested as each run is, and runs that do not go together."""

import numpy as np
import pytest
import torch
from helpers import RATIOS, SMALL, main_here, rows_of, tiny_ratings, train_here, write_dat

from Models.checkpoint import load_model
from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import split_rows
from resultAnalyze import blend
from utils.files import UserError, read_json

PRESETS = ("autoencoder", "ncf-ranking")


@pytest.fixture(scope="module")
def runs(places, tmp_path_factory):
    """Two presets, trained on the same rows."""
    folder = tmp_path_factory.mktemp("blended")
    return [
        train_here(*places, "--run", folder / name, "--preset", name, "--epochs", 3, *SMALL[name]) for name in PRESETS
    ]


def test_the_weighted_sum_is_tested_as_each_run_is(runs, data, tmp_path, capsys):
    main_here(blend, "--runs", *runs, "--weights", 0.5, 2, "--output", tmp_path)
    split = split_rows(data, "random", RATIOS)
    evaluator = RankingEvaluator(data, split, relevance_threshold=4)
    one, other = (evaluator.fitted_for_test(load_model(run / "best.pt", torch.device("cpu")).model) for run in runs)
    ranking = evaluator.rank(
        lambda users: 0.5 * one.score(users) + 2 * other.score(users), evaluator.split.known, split.test
    )
    user = str(data.user_ids[ranking.users[0]])
    listed = [int(row["movieId"]) for row in rows_of(tmp_path / "test_topn.csv") if row["userId"] == user]
    assert data.movies["movie"].to_numpy()[ranking.topn[0]].tolist() == listed
    found = read_json(tmp_path / "blend.json")
    assert list(found["weights"].values()) == [0.5, 2]
    assert all("random rows" in words for words in found["protocols"].values())
    assert f"NDCG@10 {found['ndcg@10']:.4f}" in capsys.readouterr().out


def test_weights_make_the_validation_ratings_likely(runs, data, tmp_path):
    """In another order of the runs, each run keeps its weight."""
    main_here(blend, "--runs", *runs, "--output", tmp_path / "one")
    main_here(blend, "--runs", *runs[::-1], "--output", tmp_path / "other")
    one, other = (list(read_json(tmp_path / name / "blend.json")["weights"].values()) for name in ("one", "other"))
    assert one == pytest.approx(other[::-1], rel=1e-3)


def test_models_that_take_the_time_of_the_request_are_told_it(places, data, tmp_path):
    runs = []
    for seed in (0, 1):
        flags = ("--preset", "transformer", "--epochs", 2, *SMALL["transformer"], "--split", "leave-one-out")
        runs.append(train_here(*places, "--run", tmp_path / str(seed), *flags, "--seed", seed))
    main_here(blend, "--runs", *runs, "--weights", 1, 1e-9, "--output", tmp_path / "blend")
    both = [
        [(row["userId"], row["movieId"]) for row in rows_of(path / "test_topn.csv")]
        for path in (runs[0], tmp_path / "blend")
    ]
    assert both[0] == both[1]
    protocols = read_json(tmp_path / "blend/blend.json")["protocols"].values()
    assert all("request time: known" in words for words in protocols)


def test_the_conditional_logit_by_hand(data):
    """Of two scores, one that knows the validation ratings and one that is noise, the first gets the weight."""
    split = split_rows(data, "random", RATIOS)
    evaluator = RankingEvaluator(data, split, relevance_threshold=4)
    random = np.random.default_rng(0)
    truth = data.select(evaluator.relevant(split.val)).matrix().toarray()
    useful = torch.from_numpy(truth + random.normal(size=truth.shape)).float()
    noise = torch.from_numpy(random.normal(size=truth.shape)).float()
    weights = blend.fit_weights(evaluator, [lambda users: useful[users], lambda users: noise[users]])

    def loss(w) -> float:
        total, values = w[0] * useful + w[1] * noise, []
        for row in evaluator.relevant(split.val):
            user = data.user[row]
            known = data.movie[split.train][data.user[split.train] == user]
            scores = np.delete(total[user].numpy(), known)
            values.append(np.log(np.exp(scores).sum()) - float(total[user, data.movie[row]]))
        return float(np.mean(values))

    best = loss(weights.tolist())
    assert weights[0] > 0.3 > abs(weights[1])
    for step in ((0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05)):
        assert loss((weights + torch.tensor(step)).tolist()) > best


def test_runs_that_do_not_go_together_are_refused(runs, places, tiny_run, tmp_path):
    def refusal(*flags: object) -> str:
        with pytest.raises(UserError) as error:
            main_here(blend, *flags, "--output", tmp_path / "none")
        assert not (tmp_path / "none").exists()
        return str(error.value)

    flags = ("--preset", "autoencoder", "--epochs", 1, *SMALL["autoencoder"])
    others = train_here(*places, "--run", tmp_path / "others", *flags, "--split", "user-time")
    blind = train_here(*places, "--run", tmp_path / "blind", *flags, "--ratios", 0.7, 0, 0.3)
    assert refusal("--runs", runs[0]) == "--runs: give two runs or more."
    assert "--weights: give 2 numbers, one for each of --runs" in refusal("--runs", *runs, "--weights", 1)
    assert "--weights: give 2 numbers" in refusal("--runs", *runs, "--weights", "nan", 1)
    assert "--runs names a run more than once" in refusal("--runs", runs[0], runs[0])
    assert "predicts ratings: give runs of presets that rank" in refusal("--runs", runs[0], tiny_run)
    assert "was tested on different rows than" in refusal("--runs", runs[0], others)
    assert "has no validation rows to choose weights by: give them with --weights" in refusal("--runs", blind, runs[0])
    scaled = train_here(*places, "--run", tmp_path / "scaled", *flags, "--scale", 0, 5, "--relevance-threshold", 4)
    assert "read ratings on different scales: train them with the same --scale" in refusal("--runs", runs[0], scaled)
    later = train_here("--continue-from", runs[0], "--epochs", 1, "--run", tmp_path / "later")
    assert "continued from another run, on which its split depends" in refusal("--runs", runs[0], later)


def test_other_ratings_than_the_runs_were_trained_on_are_refused(places, tmp_path):
    """Other rows would be tested, among them some that the runs were trained on."""
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    runs = []
    for name in PRESETS:
        flags = ("--preset", name, "--epochs", 1, *SMALL[name])
        runs.append(train_here("--data", folder, *places[2:], "--run", tmp_path / name, *flags))
    write_dat(tmp_path / "tiny", tiny_ratings()[::-1])
    with pytest.raises(
        UserError, match=r"The ratings are not those that .* was trained and tested on: put the old files"
    ):
        main_here(blend, "--runs", *runs, "--output", tmp_path / "blend")
