# Every command of the project; `make` alone lists them. All run in the project's own virtual
# environment, .venv, which is made on first use from the pins in requirements/.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test quick lint format bench clean

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.demo  ## install convt and upsample a phantom; writes convt-demo/ with a picture
	$(BIN)/convt demo

test: $(VENV)/.test  ## run the whole test suite
	$(PYTEST)

quick: $(VENV)/.test  ## run the tests that take less than a second each
	$(PYTEST) -m "not slow"

lint: $(VENV)/.test  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench  ## measure convt against other libraries
	$(BIN)/python -m benchmarks

clean:  ## remove the environment, caches and built files
	rm -rf $(VENV) build dist convt-demo .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written once its installation is complete, so that the next run installs nothing and
# needs no network; an edit of the pins or of pyproject.toml makes it stale.
$(VENV)/.test: requirements/demo.txt
$(VENV)/.bench: requirements/demo.txt requirements/test.txt

$(VENV)/.%: requirements/%.txt pyproject.toml | $(VENV)/.created
	$(INSTALL) --requirement $<
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "convt needs Python 3.10 or newer, not " + sys.version.split()[0] + ": name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	touch $@
