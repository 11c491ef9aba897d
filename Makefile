# The front door of the project. Each target calls one script or cargo; the scripts explain themselves.

PREFIX ?= /usr/local
DESTDIR ?=

# Build products and tools live outside the clone, shared by all clones of a user. All of it can be deleted.
export QUEEN_CACHE ?= $(HOME)/.cache/libqueen
export CARGO_TARGET_DIR ?= $(QUEEN_CACHE)/target

.DEFAULT_GOAL := help
.PHONY: help quickstart test check stress bench budget fuzz install header docs fmt clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

quickstart: ## build the library, run examples/c/quickstart.c (QUEEN_URL=http://host:6632 for a server)
	@scripts/quickstart

test: ## every test, on three brokers; ends with "N passed, N failed"
	@scripts/test

check: ## format, lints, header, exported symbols, licences, generated docs
	@scripts/check

stress: ## the tests in their full sizes; takes long
	@QUEEN_TEST_SIZE=full scripts/test

bench: ## measure clients and brokers side by side (QUICK=1 ONLY=case SUBJECTS=name); writes bench/results.*
	@scripts/bench

budget: ## count the instructions of a push and write tests/cost/budget.json anew
	@scripts/install "" "$(QUEEN_CACHE)/tree" && QUEEN_TREE="$(QUEEN_CACHE)/tree" tests/cost/run --write

fuzz: ## make up requests and answers for SECONDS=300 each, and look what breaks
	@scripts/fuzz $(SECONDS)

install: ## lay down the library, header, pkg-config and CMake files in DESTDIR/PREFIX (WITHOUT_BROKER=1: no embedded broker)
	@scripts/install "$(DESTDIR)" "$(PREFIX)"

header: ## write include/queen.h anew from src/ffi
	QUEEN_WRITE_HEADER=1 cargo check --quiet --lib

docs: ## write docs/ERRORS.md, CONFIGURATION.md, OPERATIONS.md and the settings in BROKER.md anew from the source
	cargo run --quiet --example generate-docs
	QUEEN_WRITE_DOCS=1 cargo test --quiet --package queen-broker --bin queen-broker

fmt: ## format the Rust code
	cargo fmt --all

clean: ## remove the build products from the cache (the tools and the official broker stay)
	cargo clean
