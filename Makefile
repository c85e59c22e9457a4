PYTHON ?= python3.11
BIN := .venv/bin
TESTS := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not pages and not alone"

.PHONY: setup demo specialists test coverage pages docs messages lint bench clean

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
	$(TESTS)
	$(BIN)/python -m pytest -m alone

# Not a part of `test`: noting which lines run takes half as long again
coverage: setup
	$(TESTS) --cov --cov-report=term

# The pages of docs/ that are made from the code; the tables of the last two stand for minutes of tiny models
pages: setup
	TUNEDECK_LANG=en PYTHONPATH=tests $(BIN)/python -m support.settings_page
	PYTHONPATH=tests $(BIN)/python -m support.family_table
	PYTHONPATH=tests $(BIN)/python -m support.export_table

# The site in site/, which opens without a network; docs/reference/ is completed from the code first
docs: .venv/docs-installed
	TUNEDECK_LANG=en $(BIN)/python website/reference.py
	TUNEDECK_LANG=zh $(BIN)/python website/reference.py
	TUNEDECK_LANG=zh PYTHONPATH=tests $(BIN)/python -m support.settings_page
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Brings the catalogues of translations in line with the texts in the code
messages: setup
	PYTHONPATH=tests $(BIN)/python -m support.messages

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python bench/train_classify.py
	$(BIN)/python bench/train_generate.py

clean:
	rm -rf .venv runs build dist site
