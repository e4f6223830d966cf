.DEFAULT_GOAL := help
PREFIX ?= /usr/local
.PHONY: help build install demo test lint soak bench-deploy clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the program: target/release/coracle
	cargo build --locked --release --package coracle

install: build ## Install it: PREFIX/bin/coracle, PREFIX being /usr/local unless it is given
	install -D -m 755 "$${CARGO_TARGET_DIR:-target}/release/coracle" "$(DESTDIR)$(PREFIX)/bin/coracle"

demo: ## Deploy, break and roll back a real app under load, on a throw-away server
	@scripts/demo

test: ## Set up what the tests need and run all of them
	@scripts/test

lint: ## Formatting, lints and the arrows between crates
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --quiet --package coracle-tests --test arrows

soak: ## 100 deploys under 500 requests a second on each engine, a third of them broken (COUNT=, RATE=, ENGINE=)
	@scripts/soak

bench-deploy: ## Deploys beside their floor, idle memory, route-switch latency; the last line is RESULT {json}
	@scripts/bench-deploy

clean: ## Remove what was built
	cargo clean
