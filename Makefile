# make train: set up and train on the bundled books. make test: set up and run the tests; make test-all: those too
# that take long. ARGS= is handed on:
#   make train ARGS="model=small regularization=light"
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TRANSFORMERS := 'transformers>=4.55,<6'
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock

.PHONY: train test test-all lint lock tensorboard clean

train: $(VENV)/.run
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto $(ARGS)

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n auto -m "slow or not slow" $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The newest versions within the bounds of pyproject.toml that pip finds together.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --disable-pip-version-check --quiet '.[test]' $(TRANSFORMERS)
	(echo "# The exact versions that the tests run with; the bounds are in pyproject.toml. Written by make lock." && \
		build/lock/bin/python -m pip freeze --exclude hp_lightning | sed 's/+cpu$$//') > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock

tensorboard: $(VENV)/.run
	@echo "TensorBoard: http://127.0.0.1:6006   (Ctrl-C stops it)"
	$(BIN)/tensorboard --logdir outputs --host 127.0.0.1 --port 6006

clean:
	rm -rf $(VENV) *.egg-info

$(VENV)/.run: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Setting up: downloading PyTorch and the rest takes a few minutes, once."
	$(PIP) --editable '.[all]'
	@touch $@

# transformers lies apart: torchmetrics imports it where it is installed, seconds in each of the tests' many processes.
$(VENV)/.test: $(VENV)/.run
	$(PIP) --editable '.[test]'
	$(PIP) --target $(VENV)/transformers $(TRANSFORMERS)
	@touch $@
