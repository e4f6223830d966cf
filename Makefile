.DEFAULT_GOAL := help
PREFIX ?= /usr/local
.PHONY: help build install pyrunner demo test lint soak bench-deploy bench-push bench-proxy bench-pyrunner conformance testssl clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the program: target/release/coracle
	cargo build --locked --release --package coracle

install: build ## Install it: PREFIX/bin/coracle, PREFIX being /usr/local unless it is given
	install -D -m 755 "$${CARGO_TARGET_DIR:-target}/release/coracle" "$(DESTDIR)$(PREFIX)/bin/coracle"

pyrunner: ## Build PyRunner, target/release/pyrunner, and put it into its two examples
	cargo build --locked --release --package coracle-pyrunner
	for example in pyrunner-deploy pyrunner-compose; do \
	  install -m 755 "$${CARGO_TARGET_DIR:-target}/release/pyrunner" examples/$$example/pyrunner; \
	done

demo: ## Deploy, break and roll back a real app under load, on a throw-away server
	@scripts/demo

test: ## Set up what the tests need and run all of them
	@scripts/test

lint: ## Formatting, lints and the arrows between crates
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --quiet --workspace --test arrows

soak: ## 100 deploys under 500 requests a second on each engine, a third of them broken; 200 containers that come and go (COUNT=, RATE=, ENGINE=, CONTAINERS=)
	@scripts/soak

bench-deploy: ## Deploys beside their floor, idle memory, route-switch latency; the last line is RESULT {json}
	@scripts/bench-deploy

bench-push: ## `git push` over HTTP and SSH beside `coracle deploy` of the same change, and how soon steps start (ROUNDS=); the last line is RESULT {json}
	@scripts/bench-push

bench-proxy: ## The proxy beside HAProxy and nginx (ROUNDS=, SECONDS=, ONLY=c64,tls); the last line is RESULT {json}
	@scripts/bench-proxy

bench-pyrunner: ## PyRunner beside bare Python, bubblewrap and a container per call (ROUNDS=, SECONDS=, ONLY=); the last line is RESULT {json}
	@scripts/bench-pyrunner

conformance: ## Feed cases of other projects through the public interfaces (CASES=DIR, usually ../shared/cases)
	@CASES="$(CASES)" scripts/conformance

testssl: ## What testssl.sh finds on the proxy's default configuration
	@scripts/testssl

clean: ## Remove what was built
	cargo clean
