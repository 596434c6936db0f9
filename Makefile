# Needs Python 3.11 or newer, make, and a package index. Everything lands in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1

.PHONY: demo test bench format docs clean

demo: $(VENV)/.ready
	@$(BIN)/memkeep demo
	@command -v memkeep >/dev/null || echo "memkeep is $(BIN)/memkeep here; pip install '.[lance]' puts it on your PATH." >&2

test: $(VENV)/.ready-dev
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/pytest -q -n 2

bench: $(VENV)/.ready-dev
	@$(BIN)/python bench/run.py

format: $(VENV)/.ready-dev
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

docs: $(VENV)/.ready-dev
	@$(BIN)/python docs/generate.py

clean:
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# The stamps say that .venv holds what pyproject.toml asks for; both are made again when it changes.
$(VENV)/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "python3.11 was not found. Install it, or run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11. Run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) (once) ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[lance]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready pyproject.toml
	@echo "Adding the tools for tests (once) ..." >&2
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@
