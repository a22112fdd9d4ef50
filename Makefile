# make demo, make test: all that a newcomer needs. Everything is installed into .venv, nothing elsewhere.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test slow lint clean

demo: $(READY)
	$(BIN)/minicc demo --out out/demo
	@echo "The pictures are in out/demo"

test: $(READY)
	$(BIN)/python -m pytest
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then $(BIN)/python -m pytest --nbval notebooks/; fi

slow: $(READY)
	$(BIN)/python -m pytest -m slow -s

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# torch first and exactly: a range would let pip take a build for another accelerator.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[course,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
