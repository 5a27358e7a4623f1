# make try    converts the shipped demo model and chats with it
# make test   runs the tests          make check  linter and types          make fix  tidies up
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
set_up = $(PYTHON) edgesppo/bootstrap.py "$(VENV)" $(1)
else
BIN := $(VENV)/bin
# Python prints a traceback when Ctrl-C comes while it starts. So the shell takes Ctrl-C and sends
# SIGTERM on; what it runs in the background ignores Ctrl-C.
set_up = trap 'kill $$! 2>/dev/null; wait; exit 130' INT TERM HUP; \
	$(PYTHON) edgesppo/bootstrap.py "$(VENV)" $(1) & wait $$!
endif

.PHONY: try test check fix clean

try:
	@$(call set_up,fast)
	@"$(BIN)/edgesppo" try

test:
	@$(call set_up,test)
	@"$(BIN)/python" -m pytest $(ARGS)

# mypy does not follow the editable install that maps convert/ to edgesppo_convert; a link it does.
check:
	@$(call set_up,test check)
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@mkdir -p "$(VENV)/types"
	@ln -sfn "$(CURDIR)/convert" "$(VENV)/types/edgesppo_convert"
	@MYPYPATH="$(CURDIR):$(VENV)/types" "$(BIN)/mypy"

fix:
	@$(call set_up,test check)
	@"$(BIN)/ruff" check --fix .
	@"$(BIN)/ruff" format .

clean:
	rm -rf "$(VENV)" build *.egg-info .pytest_cache .mypy_cache .ruff_cache
