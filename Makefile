# make demo, make test: all that a newcomer needs. Everything is installed into .venv, nothing elsewhere.
# Another Python than python3: make demo PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Made once the installation is complete, so that one that was cut off is done again.
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test slow lint notebooks student grade site colab install clean

demo: $(READY)
	$(BIN)/minicc demo --out out/demo
	@echo "The pictures are in out/demo"

# Two at a time, of one thread each: most tests are too small for a second thread to pay.
TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
test: $(READY)
	$(TWO)
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then $(TWO) --nbval notebooks/; fi

slow: $(READY)
	$(BIN)/python -m pytest -m slow -s

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# Every notebook executed, its outputs stored.
notebooks: $(READY)
	$(BIN)/python tools/execute.py notebooks/*.ipynb

# The notebooks for a class: stubs where the solutions were, no outputs.
student: $(READY)
	$(BIN)/python tools/student.py build/student notebooks/*.ipynb

# What students hand in, checked: make grade FILES="handed-in/*.ipynb"
grade: $(READY)
	$(BIN)/python tools/grade.py $(FILES)

# The notebooks' first cells and links, from the repository's address in pyproject.toml; see docs/colab.md.
colab: $(READY)
	$(BIN)/python tools/colab.py notebooks/*.ipynb

# The course as pages, from the notebooks' stored outputs; they need no network.
site: $(READY)
	$(BIN)/python tools/site.py build/site notebooks/*.ipynb

install: $(READY)

# torch first and exactly: a range would let pip take a build for another accelerator.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "minicc needs Python 3.11 or newer, $(PYTHON) is older or missing: make demo PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes and 2 GB, once"
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[course,dev,site]'
	@touch $(READY)

clean:
	rm -rf $(VENV) out build .pytest_cache .mypy_cache .ruff_cache .hypothesis
