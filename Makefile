# mvSQLite: `make demo` to try it, `make test` to check everything, `make help` for the steps.
#
# What is written where: binaries into cargo's target directory (./target, or CARGO_TARGET_DIR);
# what only the tests need and takes long to fetch or build into MVSQLITE_CACHE; missing Debian
# packages are installed by scripts/install-packages.sh, which says so.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# rustup leaves cargo here, which not every non-login shell looks through.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo

MVSQLITE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mvsqlite
export MVSQLITE_CACHE

RELEASE := $(abspath $(or $(CARGO_TARGET_DIR),target))/release
# What the demo and tests/e2e run: the files a user gets.
export MVSTORE := $(RELEASE)/mvstore
export MVSQLITE_PRELOAD := $(RELEASE)/libmvsqlite_preload.so

SPEEDTEST1 := $(MVSQLITE_CACHE)/speedtest1/speedtest1
NEWEST_SQLITE := $(MVSQLITE_CACHE)/newest-sqlite/libsqlite3.so.0
export MVSQLITE_SPEEDTEST1 := $(SPEEDTEST1)
export MVSQLITE_NEWEST_SQLITE := $(dir $(NEWEST_SQLITE))

# e2e tests run processes of their own; two at a time keep two cores busy.
E2E_THREADS ?= 2

.PHONY: help
help: ## Lists the steps
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: install-demo release ## A sqlite3 shell on a versioned database; without a terminal, a short tour
	@scripts/demo.sh

.PHONY: test
test: install-test lint test-unit test-e2e test-sim test-crash test-sqlite-suite ## Installs what is missing and runs every check there is
	@echo "make test: everything passed"

.PHONY: release
release: ## Builds mvstore and the client libraries as a user gets them
	$(CARGO) build --release --locked -p mvstore -p mvsqlite-preload -p mvsqlite-extension -p mvsqlite

.PHONY: lint
lint: ## Formatting, clippy without warnings, licences and advisories if cargo-deny is there
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(MAKE) --no-print-directory deny; \
	 else echo "cargo-deny is not installed: deny.toml is not checked"; fi

.PHONY: deny
deny: ## Licences, advisories, bans and sources of all dependencies (needs cargo-deny)
	$(CARGO) deny --locked check

.PHONY: test-unit
test-unit: ## Unit, property and integration tests of every crate
	$(CARGO) test --workspace --exclude mvsqlite-e2e --locked

.PHONY: sim
sim: ## Seeds of the simulation: SEEDS=200, or one again with its steps: SEED=17; SIM="--workload registers"
	$(CARGO) run --profile sim --locked -q -p mvsqlite-simulation --bin sim -- \
	  $(if $(SEED),--seed $(SEED) --trace,--seeds $(or $(SEEDS),200) --first $(or $(FIRST),0)) $(SIM)

# The same seeds each time, each of them twice: a run that does not replay is a failure.
SIM_SEEDS ?= 500

.PHONY: test-sim
test-sim: ## The fixed set of seeds of the simulation, each of them twice
	$(CARGO) run --profile sim --locked -q -p mvsqlite-simulation --bin sim -- --seeds $(SIM_SEEDS) --twice

.PHONY: planted
planted: ## Proof that the checks can fail: each planted bug is found; PLANTED="--bug forget-outcome" one of them
	$(CARGO) run --profile sim --locked -q -p mvsqlite-simulation --bin sim -- --planted $(PLANTED)
	scripts/planted-elsewhere.sh

.PHONY: test-e2e
test-e2e: release $(SPEEDTEST1) $(NEWEST_SQLITE) ## Real processes: store, sqlite3, Python, speedtest1
	$(CARGO) test -p mvsqlite-e2e --locked -- --show-output --test-threads $(E2E_THREADS)

TESTFIXTURE := $(MVSQLITE_CACHE)/testfixture/testfixture
.PHONY: sqlite-suite
sqlite-suite: release testfixture ## SQLite's own tests over mvSQLite; SUITE="select* trans*" picks, SUITE="--mode exclusive lock*"
	$(CARGO) run -p mvsqlite-suite --locked -- --fixture $(TESTFIXTURE) --mvstore $(MVSTORE) $(SUITE)

.PHONY: test-sqlite-suite
test-sqlite-suite: release testfixture ## The part of them that says most in some minutes
	$(CARGO) run -p mvsqlite-suite --locked -- --fixture $(TESTFIXTURE) --mvstore $(MVSTORE) --quiet --part tests/sqlite-suite/part.txt

.PHONY: testfixture
testfixture: release ## SQLite's testfixture with mvSQLite as its VFS; its source is fetched once
	scripts/build-testfixture.sh $(dir $(TESTFIXTURE)) $(RELEASE)/libmvsqlite.a

.PHONY: crash
crash: release $(NEWEST_SQLITE) ## Kills stores and clients at random for MINUTES=5, faults drawn from SEED=s, and checks
	$(CARGO) run -p mvsqlite-e2e --locked --bin crash -- --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED))

.PHONY: test-crash
test-crash: ## The same for a minute, always with the same faults
	@$(MAKE) --no-print-directory crash MINUTES=0.8 SEED=42

.PHONY: speedtest1
speedtest1: release $(SPEEDTEST1) ## SQLite's own speedtest1 on a file and over the preload library
	$(CARGO) test -p mvsqlite-e2e --locked --test speedtest -- --show-output

$(SPEEDTEST1): scripts/build-speedtest1.sh
	scripts/build-speedtest1.sh $(dir $@)

$(NEWEST_SQLITE): scripts/build-newest-sqlite.sh Cargo.lock
	scripts/build-newest-sqlite.sh $(dir $@)

.PHONY: test-fuzz
test-fuzz: ## Every input of the fuzzing corpora on every decoder (a part of test-unit)
	$(CARGO) test -p mvsqlite-fuzz --locked -- --show-output

.PHONY: fuzz
fuzz: install-fuzz ## Fuzzes every decoder for MINUTES=10 in all; TARGET="journal names" picks, SANITIZER=address
	scripts/fuzz.sh $(or $(MINUTES),10) $(TARGET)

.PHONY: bench
bench: release ## Ratios to a local SQLite file; BENCH="--only scan" picks workloads
	$(CARGO) run --release --locked -p mvsqlite-bench -- --mvstore $(MVSTORE) $(BENCH)

.PHONY: bench-large
bench-large: release ## One transaction of 2 GB beside a local file (20 GB of disk); LARGE="--bytes 500000000" is smaller
	scripts/bench-large.py $(LARGE)

.PHONY: bench-scale
bench-scale: release ## Clients, history, namespaces, idle (about 10 min); SCALE="clients forks" picks, SCALE="--one-in 50" tries
	$(CARGO) run --release --locked -p mvsqlite-bench -- --mvstore $(MVSTORE) scale $(SCALE)

.PHONY: install-demo
install-demo: ## Installs the Debian packages that the demo needs, if any are missing
	@scripts/install-packages.sh demo

.PHONY: install-fuzz
install-fuzz: ## Installs what fuzzing needs, if anything is missing
	@scripts/install-packages.sh fuzz

.PHONY: install-test
install-test: ## Installs what the tests need, if anything is missing
	@scripts/install-packages.sh test
