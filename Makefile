# Everything runs in an environment of its own, $(VENV), made on first use.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
KODAK ?= data/kodak
FOLDERS = $(if $(TRAIN),--train $(TRAIN)) $(if $(TECNICK),--tecnick $(TECNICK)) $(if $(CLIC),--clic $(CLIC))
READY = $(VENV)/ready

.PHONY: help demo test foreign docs lint wheel bench tables smoke figures clean

help:
	@echo "make demo     set up, then measure the shipped codecs on two photographs; pictures under out/demo/"
	@echo "make test     set up, then run the tests"
	@echo "make foreign  set up an environment with CompressAI and diffusers, then run the tests of their adapters"
	@echo "make docs     build the guide and reference into site/"
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

# One process for each core; what tests share, a process has alone (tests/conftest.py).
test: $(READY)
	$(RUN) -m pytest --numprocesses auto --dist loadgroup

# CompressAI pins numpy < 2, which it does not need here: hence --no-deps, and what it imports by name. The version
# numbers of torchvision and torch, 0.28 and 2.13 for one, go together.
foreign: $(VENV)-foreign/ready
	$(VENV)-foreign/bin/python -m pytest tests/test_compressai.py tests/test_diffusers.py

$(VENV)-foreign/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-foreign
	$(VENV)-foreign/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-foreign/bin/python -m pip install --quiet --editable '.[demo,test]'
	$(VENV)-foreign/bin/python -m pip install --quiet diffusers einops requests torch-geometric
	minor=$$($(VENV)-foreign/bin/python -c "import torch; print(int(torch.__version__.split('.')[1]) + 15)") && \
	$(VENV)-foreign/bin/python -m pip install --quiet --no-deps compressai "torchvision==0.$$minor.*"
	touch $@

docs: $(READY)
	$(RUN) -m pip install --quiet --editable '.[docs]'
	$(RUN) -m mkdocs build --strict

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
