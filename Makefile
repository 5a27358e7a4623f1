# make try    converts the shipped demo model and chats with it
# make test   runs the tests          make check  linter and types          make fix  tidies up
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

.PHONY: try test check fix clean

try:
	@$(PYTHON) -m edgesppo.dev.bootstrap $(VENV)
	@$(BIN)/edgesppo try

test:
	@$(PYTHON) -m edgesppo.dev.bootstrap $(VENV) test
	@$(BIN)/python -m pytest $(ARGS)

# mypy does not follow the editable install that maps convert/ to edgesppo_convert; a link it does.
check:
	@$(PYTHON) -m edgesppo.dev.bootstrap $(VENV) test check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/types
	@ln -sfn "$(CURDIR)/convert" $(VENV)/types/edgesppo_convert
	@MYPYPATH="$(CURDIR):$(CURDIR)/$(VENV)/types" $(BIN)/mypy

fix:
	@$(PYTHON) -m edgesppo.dev.bootstrap $(VENV) test check
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
