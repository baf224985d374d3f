PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two workers: the suite is sized for 2 cores, and each worker runs torch on one thread.
WORKERS ?= 2

.PHONY: demo test test-slow test-device test-all test-lowest check docs notebook clean

# Trains RegMix and standard training on real digits, attacks both, and writes demo/report.html.
demo: $(VENV)/installed
	rm -rf demo && mkdir demo
	$(BIN)/regmix train digits-regmix --out demo/regmix
	$(BIN)/regmix train digits-regmix --method standard --out demo/standard
	for run in regmix standard; do \
	  $(BIN)/regmix evaluate demo/$$run --attacks fgsm,pgd-10,pgd-50 --eps 0.05,0.1,0.15,0.2,0.25 || exit 1; \
	done
	$(BIN)/regmix report demo/regmix demo/standard -o demo/report.html

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) -m "not slow"

test-slow: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) -m slow

# On the device that DEVICE names; on a GPU the workers share it, and each has CUDA to load.
DEVICE ?= cuda
DEVICE_WORKERS ?= 8
test-device: $(VENV)/installed-test
	OMP_NUM_THREADS=1 REGMIX_TEST_DEVICE=$(DEVICE) $(BIN)/pytest -q -n $(DEVICE_WORKERS) -m "device and not slow"

test-all: test test-slow

# With the oldest versions that pyproject.toml admits: torch comes with several GB of CUDA.
test-lowest: $(VENV)-lowest/installed
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/pytest -q -n $(WORKERS) -m "not slow"

check: $(VENV)/installed-test
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/python -W error -c "import regmix.cli.commands, regmix.data.parquet, regmix.models.state"

# The documentation site, docs/_build/index.html; a warning is an error.
docs: $(VENV)/installed-test
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build

# Runs the notebook of the docs, and keeps its outputs.
notebook: $(VENV)/installed-test
	$(BIN)/python docs/execute.py

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1 timm==1.0.31 torchvision==0.28.0
	touch $@

$(VENV)-lowest/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest demo docs/_build docs/_generated docs/jupyter_execute
