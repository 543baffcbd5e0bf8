# make demo and make test do all the set-up; nothing is installed outside .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.installed

.PHONY: demo test check bench bench-compile bench-search bench-table bench-latency bench-farm bench-drift bench-resume bench-exact bench-efficiency bench-evaluation bench-devices bench-tail clean

demo: $(READY)
	$(BIN)/hwnas demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-compile bench-search bench-efficiency bench-exact bench-evaluation bench-devices bench-tail bench-resume bench-table bench-latency bench-farm bench-drift

bench-compile: $(READY)
	$(BIN)/python benchmarks/compile.py

bench-search: $(READY)
	$(BIN)/python benchmarks/search_loop.py

bench-table: $(READY)
	$(BIN)/python benchmarks/table.py

bench-latency: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/latency.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/latency_recipe.py

bench-farm: $(READY)
	$(BIN)/python benchmarks/farm.py

bench-drift: $(READY)
	$(BIN)/python benchmarks/drift.py

bench-resume: $(READY)
	$(BIN)/python benchmarks/resume.py

bench-exact: $(READY)
	$(BIN)/python benchmarks/exact.py

bench-efficiency: $(READY)
	$(BIN)/python benchmarks/search_efficiency.py

bench-evaluation: $(READY)
	$(BIN)/python benchmarks/evaluation.py

bench-devices: $(READY)
	$(BIN)/python benchmarks/devices.py

bench-tail: $(READY)
	$(BIN)/python benchmarks/tail_limit.py

clean:
	rm -rf .venv runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' -c constraints.txt
	touch $(READY)
