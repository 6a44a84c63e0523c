# Two commands do everything: `make quickstart` and `make check`.
SHELL := /bin/bash
PRESET ?= release
BUILD := build/$(PRESET)
PYTHON := .venv/bin/python
BIN := $(BUILD)/src/pennyweight
# Ninja's own choice is two jobs more than there are cores.
export CMAKE_BUILD_PARALLEL_LEVEL ?= \
	$(shell nproc 2> /dev/null || sysctl -n hw.ncpu)
CONFIGURE = cmake --preset $(1) -DPython_EXECUTABLE=$(CURDIR)/$(PYTHON) \
	--log-level=WARNING > /dev/null
PYTEST := PENNYWEIGHT_BIN=$(CURDIR)/$(BIN) \
	PENNYWEIGHT_BUILD_DIR=$(CURDIR)/$(BUILD) \
	PENNYWEIGHT_SANITIZE_BIN=$(CURDIR)/build/sanitize/src/pennyweight \
	$(PYTHON) -m pytest -q -rs --durations=20 \
	-n 2 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart check check-all test-slow setup setup-tests setup-macos setup-aarch64 build sanitize lint format \
	test-cpp test-sanitize test-python bench clean help program \
	includes wheel try-wheel setup-wheel python-api check-macos check-aarch64

quickstart: program ## set up, build, quantize the demo model, print the table
	@tools/quickstart.sh $(BIN)

check: lint build test-cpp test-sanitize check-macos test-python ## everything CI checks
	@echo "make check: all passed"

check-all: check includes check-aarch64 test-slow try-wheel ## and what takes long: 200 kills, 500 hostile inputs, 1 GB of text, all families
	@echo "make check-all: all passed"

test-slow: build sanitize setup-tests
	@PENNYWEIGHT_SLOW=1 $(PYTEST) $$(grep -lE "\bSLOW\b|\bchosen\(" tests/*/test_*.py)

setup: ## system packages and the .venv that the build needs
	@tools/setup.sh build

setup-tests:
	@tools/setup.sh tests

setup-macos:
	@tools/setup.sh macos

setup-aarch64:
	@tools/setup.sh aarch64

program: setup ## the program, and the core of the Python package
	@$(call CONFIGURE,$(PRESET))
	@cmake --build --preset $(PRESET) --target pennyweight pennyweight_core

build: setup ## the program, and what the tests of `make check` run
	@$(call CONFIGURE,$(PRESET))
	@cmake --build --preset $(PRESET) --target checked

sanitize: setup
	@$(call CONFIGURE,sanitize)
	@cmake --build --preset sanitize --target checked

setup-wheel:
	@tools/setup.sh wheel

wheel: setup setup-wheel ## dist/*.whl, which brings what it needs beside mlx's wheel
	@PATH="$$PATH:$$HOME/.cargo/bin" $(PYTHON) tools/wheel.py build

try-wheel: wheel program ## the wheel in a root without compilers
	@tools/try_wheel.sh $(BIN)

python-api: program ## rewrite what follows from the options: functions and stub
	@$(PYTHON) tools/python_api.py

includes: setup ## each source compiles by itself
	@$(call CONFIGURE,dev)
	@$(PYTHON) tools/check_includes.py build/dev

check-macos: setup setup-macos ## each source compiles for macOS, with MLX's headers for it
	@$(PYTHON) tools/check_macos.py

check-aarch64: setup setup-aarch64 ## the kernels' tests on ARM, in qemu (Debian)
	@$(PYTHON) tools/check_aarch64.py

lint: setup-tests ## formatting and the order of rooms
	@tools/lint.sh

format: ## rewrite our sources with clang-format
	@git ls-files -z '*.h' '*.cpp' | xargs -0 clang-format -i

test-cpp: build setup-tests
	@ctest -j 2 --test-dir $(BUILD) -L hot \
		--output-on-failure --no-tests=error

test-sanitize: sanitize
	@UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2 \
		ctest -j 2 --test-dir build/sanitize --output-on-failure \
		--no-tests=error

test-python: build sanitize setup-tests
	@$(PYTEST) tests

bench: setup-tests build ## the figures of docs/performance.md
	@tools/bench.sh $(BIN)

clean:
	rm -rf build out

help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'
