"""python main.py: skips what is current, and trains anew where a setting or a rating has changed."""

import json

from helpers import copy_of_repo, tiny_ratings, train_here, write_dat


def test_main_skips_what_is_current_and_takes_no_foreign_run_for_its_own(run_script, tiny_encoder, tmp_path):
    """Not one with other settings, and after a new rating none of the old ones."""
    clone, folder = copy_of_repo(tmp_path / "clone"), write_dat(tmp_path / "tiny", tiny_ratings())
    flags = ("--data", folder, "--encoder", tiny_encoder)
    places = ("--data", folder, "--features", clone / "dataset/tiny.pkl")
    run_script("utils/BERT.py", *flags, *places[2:], root=clone)
    for preset in ("ncf", "autoencoder"):
        foreign = ("--preset", preset, "--epochs", 1, "--embedding-dim", 2)
        tested = train_here(*places, *foreign, "--run", clone / "runs" / preset)
        train_here("--final", tested, "--run", clone / "runs" / f"{preset}-final")
    first = run_script("main.py", *flags, root=clone).stdout
    assert first.count("nothing to do") == 1  # the features
    assert len(list((clone / "runs").iterdir())) == 4 + 4
    again = run_script("main.py", *flags, "--user", 4, root=clone).stdout
    assert again.count("nothing to do") == 5 and len(list((clone / "runs").iterdir())) == 4 + 4
    assert again.splitlines()[-1].startswith("Top 10 recommended movie IDs for user 4: [")

    with (folder / "ratings.dat").open("a") as file:
        file.write("1000::2::5::978300000\n")
    asked = run_script("main.py", *flags, "--user", 1000, root=clone).stdout
    assert asked.count("nothing to do") == 1 and len(list((clone / "runs").iterdir())) == 4 + 4 + 4
    line = asked.splitlines()[-1]
    assert line.startswith("Top 10 recommended movie IDs for user 1000: [") and 2 not in json.loads(line.split(": ")[1])
    unknown = run_script("main.py", *flags, "--user", 2, root=clone, code=1)
    assert "User '2' has no ratings in tiny" in unknown.stderr and "== 4." not in unknown.stdout
    missing = run_script("main.py", "--data", tmp_path / "none", root=clone, code=1)
    assert "There is no folder" in missing.stderr


def test_choices_without_ratings_make_lists_alone(run_script, tiny_encoder, tmp_path):
    """Of somebody's own data: string ids, no ratings and no user 1, so that the first user gets the list."""
    clone, folder = copy_of_repo(tmp_path / "clone"), tmp_path / "shop"
    folder.mkdir()
    rows = "".join(f"user{u}\titem{m}\n" for u, m, _, _ in tiny_ratings())
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\n" + rows)
    items = "".join(f"item{m}\tThing {m}\n" for m in sorted({row[1] for row in tiny_ratings()}))
    (folder / "shop.item").write_text("item_id:token\tname:token_seq\n" + items)
    done = run_script("main.py", "--data", folder, "--encoder", tiny_encoder, root=clone)
    assert done.stdout.splitlines()[-1].startswith("Top 10 recommended movie IDs for user user1: ['item")
    assert (clone / "dataset/shop.pkl").is_file() and not (clone / "dataset/movie_bert_dict.pkl").exists()
    assert done.stderr.count("Note: ") == len({line for line in done.stderr.splitlines() if line.startswith("Note: ")})
    assert "prediction" not in done.stdout.split("== 5.")[1]
    assert {run.name.split("-", 2)[2] for run in (clone / "runs").iterdir()} == {"autoencoder", "autoencoder-final"}
