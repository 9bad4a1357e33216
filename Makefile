# edgec's build: `make help` lists the targets. Everything happens in .venv, made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EDGEC := $(BIN)/edgec
PYTEST := $(BIN)/python -m pytest -q --durations=5
export EDGEC_CACHE_DIR ?= $(CURDIR)/build/cache

.PHONY: help setup demo test test-nightly test-nnsmith lint types collect bench bench-optimize \
        op-coverage target-pages bench-arm clean \
        test-lint test-compile test-passes test-kernels test-targets test-cuda test-gpu test-runtime test-models test-tune test-quantize
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z].*## / { printf "  %-26s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  build/NAME.TARGET.edgec    compile models/NAME.onnx, or NAME of the zoo, for TARGET:"
	@echo "                             $(TARGETS)"
	@echo "  variables                  PYTHON=python3.13  EDGECFLAGS='-O3 --dim N=4'"

setup: $(VENV)/ready ## make the environment

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
	  { echo "edgec needs Python 3.11 to 3.14; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: build/digits_cnn.host.edgec ## compile a model, verify it, run it on real digits, time it
	$(EDGEC) inspect $<
	$(EDGEC) verify $< --against models/digits_cnn.onnx --inputs models/digits_test.npz
	$(EDGEC) run $< --input models/digits_test.npz --output build/digits
	$(EDGEC) bench $< --model models/digits_cnn.onnx --against onnxruntime

# One pattern rule per target name that takes part in file names, for models of this repository and
# for those of the zoo. The .d file that -MD writes names everything the artifact depends on.
TARGETS := host x86-64-v2 x86-64-v3 x86-64-v4 n100 elkhart-lake aarch64 armv7 rpi3 rpi4 rpi5 rpi-zero2 \
           jetson jetson-orin-nano jetson-agx-orin jetson-xavier jetson-thor
define compile_rules
build/%.$(1).edgec: models/%.onnx | $(VENV)/ready
	@mkdir -p build
	$$(EDGEC) compile $$< --target $(1) -o $$@ -MD $$(EDGECFLAGS)
build/%.$(1).edgec: models/cache/%.onnx | $(VENV)/ready
	@mkdir -p build
	$$(EDGEC) compile $$< --target $(1) -o $$@ -MD $$(EDGECFLAGS)
endef
$(foreach target,$(TARGETS),$(eval $(call compile_rules,$(target))))
-include $(wildcard build/*.edgec.d)

.PRECIOUS: models/cache/%.onnx
models/cache/%.onnx: | $(VENV)/ready
	$(BIN)/python models/build.py $*

# Two areas at a time, for most keep one processor busy; those that measure have both to themselves.
AREAS := kernels targets quantize passes models cuda runtime lint
ALONE := compile tune

test: setup ## run all tests
	$(MAKE) --jobs=2 --output-sync=target $(AREAS:%=test-%)
	$(MAKE) $(ALONE:%=test-%)

test-nightly: setup ## the long suites
	$(PYTEST) -m nightly tests

NNSMITH := .venv-nnsmith
NNSMITH_MODELS ?= 1400

test-nnsmith: setup $(NNSMITH)/ready ## random models of NNSmith, before and after optimisation
	$(NNSMITH)/bin/python tests/nnsmith/generate.py build/nnsmith $(NNSMITH_MODELS)
	$(BIN)/python tests/nnsmith/compare.py build/nnsmith

$(NNSMITH)/ready:
	$(PYTHON) -m venv $(NNSMITH)
	$(NNSMITH)/bin/python -m pip install --quiet --disable-pip-version-check \
	  'torch>=2.8' nnsmith==0.1.0 'onnx>=1.23,<1.24' 'onnxruntime>=1.31'
	@touch $@

GRAPH_TESTS := tests/passes tests/hostile $(foreach part,graph* rewrite sandbox,$(wildcard tests/test_$(part).py))

test-lint: lint types collect ## style, spelling and static types; tests that can be found
test-models: setup ## the model zoo
	@$(call timed,$(PYTEST) -m 'not nightly' tests/models)
test-passes: setup ## loading and rewriting graphs
	@$(call timed,$(PYTEST) -m 'not nightly' $(GRAPH_TESTS))
test-compile: setup ## the compile line, the command and its errors
	@$(call timed,$(PYTEST) -m 'not nightly' $(filter-out $(GRAPH_TESTS),$(wildcard tests/test_*.py)))
test-kernels: setup ## lowering and kernels
	@$(call timed,$(PYTEST) -m 'not nightly' tests/lower)
test-tune: setup ## tuning and its records
	@$(call timed,$(PYTEST) -m 'not nightly' tests/tune)
test-quantize: setup ## quantization, and where its error comes from
	@$(call timed,$(PYTEST) -m 'not nightly' tests/quantize tests/debugquant tests/integer)
test-runtime: setup ## the C runtime and the loader
	@$(call timed,$(PYTEST) -m 'not nightly' tests/runtime)
test-targets: setup ## other machines, emulated
	@$(call timed,$(PYTEST) -m 'not nightly' tests/targets)
test-gpu: setup ## models on the NVIDIA GPU of this machine; says so where there is none
	$(PYTEST) -rs tests/cuda/test_gpu.py
test-cuda: setup ## kernels for NVIDIA GPUs, without one
	@$(call timed,$(PYTEST) -m 'not nightly' tests/cuda)

timed = start=$$(date +%s); $(1); code=$$?; echo "$@: $$(($$(date +%s) - start)) s"; exit $$code

lint: setup ## style and spelling
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

types: setup ## static types
	$(BIN)/mypy

collect: setup ## whether all tests can be run at once, as the long suites are
	$(PYTEST) --collect-only tests >/dev/null

bench: setup ## the tables of the README
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python bench/zoo.py
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/speed.py -O 3
	$(BIN)/python bench/quantized_speed.py

bench-optimize: setup ## `edgec optimize` beside onnxsim and onnxslim, and on large graphs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python bench/optimize.py
	$(BIN)/python bench/scaling.py

op-coverage: setup ## docs/op-coverage.md: what becomes of the standard's own node tests
	$(BIN)/python bench/op_coverage.py

target-pages: setup ## docs/targets: compile the models for the targets, and note how far each was proved
	$(BIN)/python bench/target_pages.py --models all

bench-arm: setup ## build/arm*.md: instructions under QEMU beside ncnn and ONNX Runtime, as in docs/arm.md
	$(BIN)/python bench/arm_instructions.py --output build/arm.md
	$(BIN)/python bench/arm_instructions.py --int8 --output build/arm-int8-rpi4.md
	$(BIN)/python bench/arm_instructions.py --int8 --target rpi5 --output build/arm-int8-rpi5.md

clean: ## remove what was built
	rm -rf build
