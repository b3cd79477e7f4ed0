# Two commands on a machine with Python >= 3.11, pip and make:  make demo   make test
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: demo test lint types unit docs chaos setup clean

demo: $(STAMP)
	$(BIN)/raytricks train configs/digits.yaml
	$(BIN)/raytricks tune configs/tune_digits.yaml

test: $(STAMP) lint types docs unit

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

# What needs no Ray runs on two cores at once; Ray would crowd them
unit: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m 'not ray and not chaos'
	$(BIN)/python -m pytest -m 'ray and not chaos'

# The pages below build/site, with the API from the docstrings; a broken link or an unknown name fails
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

chaos: $(STAMP)
	$(BIN)/python -m pytest -m chaos

clean:
	rm -rf .venv build *.egg-info
