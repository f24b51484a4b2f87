"""ablation.py: it is complete, keeps its runs, and mixes no results of different protocols or ratings."""

import pytest
from helpers import main_here, rows_of, shuffle_ratings, tiny_ratings, write_dat

from resultAnalyze import ablation
from resultAnalyze.ablation import variants_of
from utils.files import UserError

SCRIPT = "resultAnalyze/ablation.py"
REFERENCES = {"user + movie bias", "genre kNN", "content"}
AVAILABLE = ["title", "genres", "year", "popularity"]
TITLE_ALONE = set(variants_of("ncf", AVAILABLE, ["title"]))


def test_an_ablation_is_complete_and_keeps_its_trainings(run_script, tiny_features, tmp_path):
    folder, out = write_dat(tmp_path / "tiny", tiny_ratings(90)), tmp_path / "out"
    flags = ("--data", folder, "--features", tiny_features, "--output", out, "--seeds", 0, "--epochs", 2)
    flags += ("--groups", "title")
    run_script(SCRIPT, *flags)
    found = rows_of(out / "ablation.csv")
    assert {row["variant"] for row in found} == REFERENCES | TITLE_ALONE
    predicted = [row for row in found if row["variant"] != "content"]
    assert all(0 < float(row["rmse"]) < 3 and 0 <= float(row["ndcg@10"]) <= 1 for row in predicted)
    table = (out / "ablation.md").read_text(encoding="utf-8")
    assert table.count("- Title: cold-movie ") == 2  # AUC and NDCG; four movies are too few for RMSE
    assert "| title shuffled | 1 |" in table
    assert (out / "ablation.png").read_bytes().startswith(b"\x89PNG")

    times = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/best.pt")}
    (out / "runs/all-0/test_metrics.json").unlink()  # as if stopped before its test
    main_here(ablation, *flags)
    assert len(times) == len(TITLE_ALONE) + 1 and all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert (out / "ablation.md").read_text(encoding="utf-8") == table

    with pytest.raises(UserError, match="another protocol"):
        main_here(ablation, *flags, "--relevance-threshold", 3)
    shuffle_ratings(folder)
    with pytest.raises(UserError, match="another protocol"):
        main_here(ablation, *flags)
    (out / "protocol.json").unlink()
    with pytest.raises(UserError, match="other ratings"):
        main_here(ablation, *flags)


def test_an_ablation_of_a_ranking_preset_has_metrics_and_a_variant_of_its_own(tiny_features, tmp_path):
    out = tmp_path / "out"
    places = ("--data", write_dat(tmp_path / "tiny", tiny_ratings(90)), "--features", tiny_features)
    main_here(ablation, *places, "--output", out, "--seeds", 0, "--epochs", 1, "--preset", "gru")
    found = rows_of(out / "ablation.csv")
    trained = {"content", *variants_of("gru", AVAILABLE)}
    assert {row["variant"] for row in found} == REFERENCES | trained
    assert all((row["rmse"] == "") == (row["variant"] in trained) for row in found)
    assert all(0 <= float(row["top-N share"]) <= 1 for row in found if row["variant"] in trained)
    assert "This preset instead of content: cold-movie NDCG@10" in (out / "ablation.md").read_text(encoding="utf-8")


def test_an_ablation_of_small_data_ends_without_effects(places, tmp_path):
    """Fewer users or movies were tested than an interval needs; all figures are still reported."""
    out = tmp_path / "out"
    main_here(ablation, *places, "--output", out, "--seeds", 0, "--epochs", 1, "--groups", "genres")
    assert len(rows_of(out / "ablation.csv")) and rows_of(out / "effects.csv") == []
    assert "0 differences over at least 20 movies or users" in (out / "ablation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("threshold", "remedy"),
    [("5.5", "No training rating is 5.5 or higher: lower"), ("0", "change --split or --relevance-threshold")],
)
def test_nothing_to_compare_is_a_sentence(places, tmp_path, threshold, remedy):
    with pytest.raises(UserError, match=remedy):
        main_here(ablation, *places, "--output", tmp_path / "out", "--relevance-threshold", threshold)
