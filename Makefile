# make try    converts the shipped demo model and chats with it
# make test   runs the tests          make check  linter and types          make fix  tidies up
# make bench  measures it beside its peers: QUICK=1 in ten minutes, ONLY=name, KEEP=1, PUBLISH=1
# make bundle makes a folder that needs no Python: build/bundle/edgesppo; ARCHIVE=1 packs it
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
set_up = $(PYTHON) edgesppo/dev/bootstrap.py "$(VENV)" $(1)
else
BIN := $(VENV)/bin
# Else make would report the Ctrl-C that stopped an answer as a failure when the chat has ended.
apart = "$(BIN)/python" -m edgesppo.dev.foreground
# Python prints a traceback when Ctrl-C comes while it starts. So the shell takes Ctrl-C and sends
# SIGTERM on; what it runs in the background ignores Ctrl-C.
set_up = trap 'kill $$! 2>/dev/null; wait; exit 130' INT TERM HUP; \
	$(PYTHON) edgesppo/dev/bootstrap.py "$(VENV)" $(1) & wait $$!
endif

.PHONY: try test check fix bench bundle clean

try:
	@$(call set_up,fast server)
	@$(apart) "$(BIN)/edgesppo" try

test:
	@$(call set_up,test)
	@"$(BIN)/python" -m pytest $(ARGS)

# The last lines check programs as their authors would: from elsewhere, with what is installed.
check:
	@$(call set_up,test check)
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"
	@cp tests/data/typed_*.py "$(VENV)"
	@cd "$(VENV)" && "$(abspath $(BIN))/mypy" --strict --config-file= typed_*.py

fix:
	@$(call set_up,test check)
	@"$(BIN)/ruff" check --fix --exit-zero .
	@"$(BIN)/ruff" format .

bench:
	@$(call set_up,test plot)
	@"$(BIN)/python" -m tests.benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
		$(if $(KEEP),--keep) $(if $(PUBLISH),--publish)

bundle:
	@$(call set_up,server bundle)
	@"$(BIN)/python" -m edgesppo.dev.bundle build/bundle $(if $(ARCHIVE),--archive)

# A folder that was never made into an environment is somebody's own.
clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@set -- "$(VENV)"/.edgesppo-base*; \
	if [ -e "$$1" ] || [ -e "$(VENV)/.edgesppo-unfinished" ] || [ -e "$(VENV)/pyvenv.cfg" ]; \
	then rm -rf "$(VENV)"; \
	elif [ -e "$(VENV)" ]; then echo "$(VENV) is no virtual environment: it is left as it is"; fi
