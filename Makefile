# The Python that .venv is created with: 3.10 to 3.13.
PYTHON ?= python3

SOAKED = tests/robustness

.PHONY: run test soak clean

# Data, features, training, loss curve and a top-10 list.
run: .venv/requirements.txt
	.venv/bin/python main.py

# Linter and the whole test suite.
test: .venv/requirements-dev.txt
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m pytest

# Hundreds of kills, thousands of damaged files and flags (docs/reliability.md); at most 30 minutes.
soak: .venv/requirements-dev.txt
	SOAK=1 .venv/bin/python -m pytest --dist load --durations 20 $(SOAKED)

# Delete everything that was generated, except downloads.
clean:
	rm -rf .venv .venv-rectools runs dataset/*.pkl dataset/*.npz dataset/*.json dataset/*metadata.csv
	rm -rf resultAnalyze/Figure_1.png resultAnalyze/calibration.png resultAnalyze/calibration.csv resultAnalyze/benchmark.json resultAnalyze/demo_page.html

# A separate environment for the library that resultAnalyze/compare_rectools.py runs.
.venv-rectools/requirements-rectools.txt: requirements-rectools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || \
	  { echo "RecTools needs Python 3.10 to 3.12; choose one, as in: make PYTHON=python3.12 $@"; exit 1; }
	@test -x .venv-rectools/bin/python || $(PYTHON) -m venv .venv-rectools
	@.venv-rectools/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@cp $< $@

# The copy of a requirements file inside .venv marks it as installed.
.venv/%.txt: %.txt requirements.txt requirements-baselines.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "This needs Python 3.10 to 3.13; choose one, as in: make PYTHON=python3.12"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing $< into .venv; the first time, this takes a few minutes ..."
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@cp $< $@
