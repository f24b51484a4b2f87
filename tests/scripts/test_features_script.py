"""utils/BERT.py as a user runs it."""


def test_unchanged_features_are_left_alone(run_script, tiny, tiny_encoder, tiny_features):
    before = tiny_features.stat().st_mtime_ns
    done = run_script("utils/BERT.py", "--data", tiny, "--encoder", tiny_encoder, "--features", tiny_features)
    assert "current" in done.stdout and tiny_features.stat().st_mtime_ns == before


def test_an_encoder_that_is_nowhere_is_explained_in_one_sentence(run_script, tiny, tmp_path):
    flags = ("--data", tiny, "--features", tmp_path / "f.pkl")
    done = run_script("utils/BERT.py", *flags, "--encoder", "bert-base-uncasd", code=1)
    assert "'bert-base-uncasd'" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    done = run_script("utils/BERT.py", *flags, "--encoder", tiny, code=1)  # a folder without a model
    assert "no *.safetensors" in done.stderr
    assert not (tmp_path / "f.pkl").exists()
