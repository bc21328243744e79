# Two commands do all set-up: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test lint clean

run: $(VENV)/.installed
	$(VENV)/bin/python -m whisper_factory profile=duplex_lowmem model=tiny.en

# In two processes, a module's tests in one of them; then what measures time, alone.
test: lint
	$(VENV)/bin/python -m pytest -m 'not alone' --numprocesses 2 --no-loadscope-reorder
	$(VENV)/bin/python -m pytest -m alone $$(grep -rlF 'pytest.mark.alone' tests)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or later is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 4; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e '.[onnxruntime,tiny-en]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) outputs/*
