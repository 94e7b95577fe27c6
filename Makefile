# The two commands a newcomer needs: `make bench` and `make test`. `make check` is what CI runs too.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test check docs clean

bench: .venv/ready ## ten tokenizers against the libraries they would otherwise use
	$(BIN)/llmatrix run experiment=quick run=quick
	@echo "open reports/quick/index.html"

test: .venv/ready ## everything a change must pass
	$(MAKE) check
	$(BIN)/python -m pytest -q -n auto

check: .venv/ready ## formatting, lint, types, generated blocks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m harness.docs --check

docs: .venv/ready ## rewrite the generated blocks of README
	$(BIN)/python -m harness.docs

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"llmatrix needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "this Python has no venv module: install it (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock || { echo "pip could not install requirements.lock: the lines above name the package; is a package index reachable?"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --constraint requirements.lock --editable .
	@touch $@

clean: ## forget the environment and what tools cached; results and reports stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
