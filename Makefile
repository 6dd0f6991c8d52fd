# Everything here needs Go, make and git; `make test` also a C compiler, for the
# race detector. What a script lacks beyond that, it installs or names.

GO      ?= go
BIN     := bin/decree
# The race detector makes the tests some five times slower; a test that has not
# ended by then hangs.
TIMEOUT ?= 20m

.DEFAULT_GOAL := help
.PHONY: help monitoring build test test-short test-fast whole costs databases failovers sim model fuzz mutants mutants-stand scale man lint generate check-generated demo bank bank-chaos chaos bench page-test screenshots packages clean ci

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/decree, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/decree

test: databases ## run all tests under the race detector, with real databases
	CGO_ENABLED=1 $(GO) test -race -timeout $(TIMEOUT) ./...

test-short: ## the same, without the tests whose databases are not here
	CGO_ENABLED=1 $(GO) test -race -short -timeout $(TIMEOUT) ./...

test-fast: databases ## run all tests without the race detector
	$(GO) test -timeout $(TIMEOUT) ./...

# What enumerates: each crash point, each byte. Under the race detector, where that takes
# some ten times as long and finds nothing more, make test has a part of it each day.
whole: ## run whole, without the race detector, what make test does in turns
	$(GO) test -timeout $(TIMEOUT) ./cluster ./fsm ./fsm/txn

# The race detector has allocations of its own.
costs: ## hold what a transaction may allocate, keep and write, without the race detector
	$(GO) test -count 1 -run 'Allocat|Waiting|ShareEntries|Memory' ./fsm ./coordinator/node ./transport ./participants/grpc

databases: ## install what tests need of PostgreSQL, MariaDB and Node; starts no server
	scripts/test-databases.sh

failovers: ## 1,000,000 failovers (FAILOVERS) of the pure protocol, on one goroutine a world
	cd fsm/txn && $(GO) test -v -run '^TestFailovers$$' -timeout 60m -failovers=$(or $(FAILOVERS),1000000) $(if $(SEED),-failovers.seed=$(SEED))

# Run in the directory, go test prints what the simulation came to.
sim: ## 50,000 failovers (FAILOVERS) of whole clusters in virtual time, every history judged
	cd coordinator/sim && $(GO) test -run TestFailovers -timeout 60m -sim.failovers=$(or $(FAILOVERS),50000) $(if $(SEED),-sim.seed=$(SEED))

fuzz: ## fuzz every target for FUZZTIME (30s) each, and print a table
	scripts/fuzz.sh

model: ## search every state of a model of the protocol, and find its seeded bugs
	scripts/model.sh --full

mutants: ## break the protocol on purpose, one bug at a time, and print what catches each
	$(GO) run -C scripts/mutants . $(MUTANTS)

mutants-stand: ## check that every mutant applies, compiles and has its row in the table
	$(GO) test -C scripts/mutants . && $(GO) run -C scripts/mutants . -check

scale: ## test the simulation of several Raft groups, and print its tables
	$(GO) test -C scripts/scale . && $(GO) run -C scripts/scale . $(SCALE)

monitoring: ## check the alerts, and what fires them, with promtool
	scripts/monitoring.sh

man: build ## write the manual pages of all commands into bin/man
	env -u DECREE_ENDPOINTS -u DECREE_CA -u DECREE_CERT -u DECREE_KEY -u DECREE_TOKEN_FILE $(BIN) man bin/man

lint: ## gofmt, go vet, staticcheck, tidiness, shellcheck
	scripts/lint.sh

generate: ## regenerate the protobuf code
	scripts/generate.sh

check-generated: ## fail if the checked-in generated code is not what generate makes
	scripts/check-generated.sh

demo: build ## watch three nodes move money while their leader is killed
	scripts/demo.sh

bank: build ## move money between real databases for a minute, and audit every coin
	scripts/bank.sh

bank-chaos: build ## the same for 200 failovers, while nodes, databases, services and links fail
	scripts/bank.sh --faults all --failovers 200 --workers 16 --pace 10ms

chaos: ## break real processes at every step of the protocol until 500 leaders fell, and audit
	scripts/chaos.sh --failovers 500 $(CHAOS)

bench: build ## measure the goals for decree's speed on this machine, a quiet quarter of an hour of it
	$(BIN) bench suite $(BENCH)

page-test: build ## use the page in a real Chromium, against three real nodes
	scripts/chromium.sh
	$(GO) test -C scripts/page -count 1 -timeout 15m $(PAGE) .

screenshots: build ## take the README's pictures of the page, of three real nodes at work
	scripts/chromium.sh
	$(GO) test -C scripts/page -count 1 -timeout 15m -run '^TestScreenshots$$' . -args -screenshots $(CURDIR)/transport/web/screenshots

packages: ## check go install from a module proxy, the systemd unit and the Kubernetes manifests
	scripts/packages.sh

ci: ## what CI runs
	.ci/run

clean: ## remove what the build and the scripts left; stop scripts/cluster.sh first
	rm -rf bin
