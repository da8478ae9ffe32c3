# make demo [INPUT=my.tif]: restore sample micrographs (or yours) and write a report.   make test: run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INPUT ?=
OUT ?= demo

.PHONY: demo test bench clean
demo: $(VENV)/installed
	$(BIN)/empapers demo --out "$(OUT)" $(if $(INPUT),--input "$(INPUT)")

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.semnet --out results/benchmark
	$(BIN)/python -m benchmarks.sem_gan --out results/benchmark
	$(BIN)/python -m benchmarks.dlss --out results/benchmark
	$(BIN)/python -m benchmarks.cgrdn --out results/benchmark
	$(BIN)/python -m benchmarks.ssum_cyclegan --out results/benchmark
	$(BIN)/python -m benchmarks.registration --out results/benchmark

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

clean:
	rm -rf $(VENV) demo results build *.egg-info
