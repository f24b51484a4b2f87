"""python main.py: it skips what is current, and trains anew where a setting or a rating has changed."""

import json
from pathlib import Path

from helpers import copy_of_repo, tiny_ratings, train_here


def write_shop(folder: Path) -> Path:
    """A user's own data: string ids, choices without ratings, and no user 1."""
    folder.mkdir()
    rows = "".join(f"user{u}\titem{m}\n" for u, m, _, _ in tiny_ratings())
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\n" + rows)
    items = "".join(f"item{m}\tThing {m}\n" for m in sorted({row[1] for row in tiny_ratings()}))
    (folder / "shop.item").write_text("item_id:token\tname:token_seq\n" + items)
    return folder


def test_main_skips_what_is_current_and_takes_no_foreign_run_for_its_own(run_script, tiny_encoder, tmp_path):
    """It reuses no run with other settings and, after a new rating, no earlier run. Choices give lists only."""
    clone, folder = copy_of_repo(tmp_path / "clone"), write_shop(tmp_path / "shop")
    flags = ("--data", folder, "--encoder", tiny_encoder)
    places = ("--data", folder, "--features", clone / "dataset/shop.pkl")
    run_script("utils/BERT.py", *flags, root=clone)  # into dataset/shop.pkl
    foreign = ("--preset", "autoencoder", "--epochs", 1, "--embedding-dim", 2)
    tested = train_here(*places, *foreign, "--run", clone / "runs/foreign")
    train_here("--final", tested, "--run", clone / "runs/foreign-final")

    first = run_script("main.py", *flags, root=clone)
    assert first.stdout.count("nothing to do") == 1  # the features
    runs = {run.name.split("-", 2)[2] for run in (clone / "runs").iterdir() if "foreign" not in run.name}
    assert runs == {"autoencoder", "autoencoder-final"}
    line = first.stdout.splitlines()[-1]
    assert line.startswith("Top 10 recommended movie IDs for user user1: ['item")  # the first user's
    assert not (clone / "dataset/movie_bert_dict.pkl").exists() and "prediction" not in first.stdout.split("== 5.")[1]
    notes = [line for line in first.stderr.splitlines() if line.startswith("Note: ")]
    assert len(notes) == len(set(notes))

    again = run_script("main.py", *flags, "--user", "user4", root=clone).stdout
    assert again.count("nothing to do") == 3 and len(list((clone / "runs").iterdir())) == 2 + 2
    assert again.splitlines()[-1].startswith("Top 10 recommended movie IDs for user user4: [")

    with (folder / "shop.inter").open("a") as file:
        file.write("somebody\titem2\n")
    asked = run_script("main.py", *flags, "--user", "somebody", root=clone).stdout
    assert asked.count("nothing to do") == 1 and len(list((clone / "runs").iterdir())) == 2 + 2 + 2
    line = asked.splitlines()[-1]
    assert line.startswith("Top 10 recommended movie IDs for user somebody: [")
    assert "item2" not in json.loads(line.split(": ")[1].replace("'", '"'))
    unknown = run_script("main.py", *flags, "--user", "nobody", root=clone, code=1)
    assert "User 'nobody' has no ratings in shop" in unknown.stderr and "== 4." not in unknown.stdout
    missing = run_script("main.py", "--data", tmp_path / "none", root=clone, code=1)
    assert "There is no folder" in missing.stderr
