# Everything runs in an environment of its own, $(VENV), made on first use.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
KODAK ?= data/kodak
FOLDERS = $(if $(TRAIN),--train $(TRAIN)) $(if $(TECNICK),--tecnick $(TECNICK)) $(if $(CLIC),--clic $(CLIC))
READY = $(VENV)/ready

.PHONY: help demo test lint wheel bench tables smoke figures clean

help:
	@echo "make demo     set up, then measure the shipped codecs on two photographs; pictures under out/demo/"
	@echo "make test     set up, then run the tests"
	@echo "make lint     style and types"
	@echo "make wheel    build the wheel into dist/"
	@echo "make bench    speed beside what else one could use"
	@echo "make tables   run all experiments with photographs in KODAK=, TRAIN=, TECNICK=, CLIC=; hours, resumes"
	@echo "make smoke    every experiment from end to end in two minutes, into a temporary folder (make tables SMOKE=1)"
	@echo "make figures  draw the figures from the committed tables into figures/out/"
	@echo "make clean    remove the environment and everything built"

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[demo,test]'
	touch $@

demo: $(READY)
	$(RUN) -m rdgap.demo --out out/demo

test: $(READY)
	$(RUN) -m pytest

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/basedpyright --pythonpath $(RUN)

wheel: $(READY)
	$(RUN) -m pip wheel --no-deps --wheel-dir dist .

bench: $(READY)
	$(RUN) -m benchmarks

tables: $(READY)
	$(RUN) analysis $(if $(SMOKE),--smoke,--images $(KODAK) $(FOLDERS))

smoke: $(READY)
	$(RUN) analysis --smoke

figures: $(READY)
	$(RUN) figures

clean:
	rm -rf $(VENV) build dist out *.egg-info
