# make demo and make test do all the set-up; nothing is installed outside .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.installed

SEARCH := bench-loop bench-efficiency bench-exact bench-evaluation bench-devices bench-tail bench-resume
SUPERNETS := bench-ranking bench-interference bench-acenas bench-differentiable bench-interleaving bench-trefe \
	bench-pad-nas bench-shift-add bench-precision
BOARDS := bench-compile bench-table bench-latency bench-farm bench-drift

.PHONY: demo test check clean bench bench-search bench-supernets $(SEARCH) $(SUPERNETS) $(BOARDS)

demo: $(READY)
	$(BIN)/hwnas demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BOARDS) bench-search bench-supernets

bench-search: $(SEARCH)

bench-supernets: $(SUPERNETS)

bench-compile: $(READY)
	$(BIN)/python benchmarks/compile.py

bench-loop: $(READY)
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

bench-ranking: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ranking.py

bench-interference: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/interference.py

bench-acenas: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/acenas.py

bench-differentiable: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/differentiable.py

bench-interleaving: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/interleaving.py

bench-trefe: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/trefe.py

bench-pad-nas: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pad_nas.py

bench-shift-add: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shift_add.py

bench-precision: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/joint_precision.py

clean:
	rm -rf .venv runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' -c constraints.txt
	touch $(READY)
