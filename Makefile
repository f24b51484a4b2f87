PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test clean

run: .venv/requirements.txt  ## features, training, loss curve and a top-10 list
	.venv/bin/python main.py

test: .venv/requirements-dev.txt  ## linter and the whole test suite
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m pytest

clean:  ## everything that was made, except downloads
	rm -rf .venv runs dataset/*.pkl dataset/*.json resultAnalyze/Figure_1.png

# The copy of a requirements file inside .venv says that it is installed.
.venv/%.txt: %.txt requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else \
	  "This needs Python 3.10 to 3.13, not %d.%d: name one, as in make PYTHON=python3.12" % v)'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing $< into .venv (a few minutes the first time) ..."
	$(PIP) -r $<
	cp $< $@
