# make demo: everything from nothing to a picture.  make test: everything from nothing to green.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.maskdepth-installed

.PHONY: demo test soak lint wheel clean

demo: $(INSTALLED)
	$(BIN)/maskdepth demo --out demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not soak"

soak: $(INSTALLED) # the full counts; their figures go to benchmarks/results/
	$(BIN)/python -m pytest -m soak || test $$? -eq 5 # 5: no test carries the mark yet

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

wheel: $(INSTALLED) # built from pinned parts, then tried in an environment without this checkout
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation
	$(BIN)/python tests/wheel.py dist/*.whl

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist demo
