PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo specialists test lint bench clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/tunedeck demo

specialists: setup
	$(BIN)/python examples/specialists/run.py

test: setup
	$(BIN)/python -m pytest --cov --cov-report=term

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python bench/train_classify.py
	$(BIN)/python bench/train_generate.py

clean:
	rm -rf .venv runs build dist
