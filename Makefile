# Portask. `make` or `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO       ?= go
MODULES  := broker loadgen loadgen/peers ci
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The version is passed by -ldflags, not stamped from version control: stamping fails where another user owns the clone.
BUILD    := -buildvcs=false -trimpath -ldflags '-X main.version=$(VERSION)'
STAGE    := .ci/stage

# git refuses a clone that another user owns, as where CI checked it out; who runs make in it trusts it.
ifndef GIT_CONFIG_COUNT
export GIT_CONFIG_COUNT   := 1
export GIT_CONFIG_KEY_0   := safe.directory
export GIT_CONFIG_VALUE_0 := $(CURDIR)
endif

# Packages whose promises are about concurrency; their tests run under the race detector in `make test`.
RACE     := ./broker/message/id/... ./broker/bus/... ./broker/config/... ./broker/monitor/... ./loadgen/verify/... ./broker/mempool/... ./broker/partition/... ./broker/topic/... ./broker/storage/... ./broker/server/... ./broker/client/...
# Not under it: campaigns over one log on one goroutine, which it slows twentyfold and has nothing to say about. They run
# without it in the stage before, and with it in `make race`.
LONE     := TestTruncateAtEveryLength|TestBitFlips|TestCrashAtEveryBoundary|TestFaultAtEveryCall

# Packages that lend or hold chunks and records; `make leases` runs their tests with every lease recorded.
LEASES   := ./broker/mempool/... ./broker/partition/... ./broker/topic/... ./broker/storage/memlog/... ./broker/server/...

# Seconds per fuzz target in `make fuzz`.
FUZZTIME ?= 10s
# A directory whose files `make demo` sends instead of the test data.
PAYLOADS ?=
# Kills of the real server in the SIGKILL campaign.
KILLS    ?= 20
export LOADGEN_KILLS = $(KILLS)

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/portask, bin/loadgen, bin/perflab
	@mkdir -p bin
	@$(GO) build $(BUILD) -o bin/ ./broker/cmd/portask ./loadgen/cmd/loadgen ./ci/cmd/perflab

.PHONY: peers
peers: build ## bin/loadgen-peers: loadgen with NATS and Redis, for `loadgen compare`
	@$(GO) build $(BUILD) -o bin/ ./loadgen/peers/cmd/loadgen-peers

.PHONY: demo
demo: build ## produce, kill the broker, restart it, verify every message; ends within 60 s
	@bin/loadgen demo --portask bin/portask $(if $(PAYLOADS),--payloads '$(PAYLOADS)')

# ci/arch reads the whole tree, which the test cache does not know: hence its -count=1.
.PHONY: test
test: ## everything a change must pass, with the seconds of each stage (at most 15 minutes on 2 cores)
	@$(STAGE) 'prerequisites' $(MAKE) prerequisites
	@$(STAGE) 'build' $(MAKE) build
	@$(STAGE) 'lint' $(MAKE) lint
	@$(STAGE) 'architecture' $(GO) test -count=1 ./ci/arch
	@$(STAGE) 'tests, with the fault campaigns' $(GO) test -timeout 10m work
	@$(STAGE) 'concurrency packages under the race detector' $(GO) test -race -timeout 10m -skip '$(LONE)' $(RACE)
	@$(STAGE) 'leases of memory' $(MAKE) leases
	@echo 'make test: passed'

.PHONY: prerequisites
prerequisites:
	@.ci/need gcc gcc libc6-dev
	@.ci/need redis-server redis-server
	@for m in $(MODULES); do (cd $$m && $(GO) mod download); done
	@$(GO) version

.PHONY: race
race: prerequisites ## every test under the race detector
	@$(GO) test -race -timeout 60m work

.PHONY: leases
leases: ## tests of what lends or holds memory, with leaks, second releases and uses after release found
	@$(GO) test -tags leasecheck -timeout 10m $(LEASES)

.PHONY: lint
lint: ## gofmt, vet, staticcheck, each module by itself, other systems, known vulnerabilities
	@bad=$$(gofmt -l $(MODULES)); if [ -n "$$bad" ]; then echo "not formatted: $$bad" >&2; exit 1; fi
	@$(GO) vet work
	@cd broker && $(GO) tool staticcheck ./... ../loadgen/... ../loadgen/peers/... ../ci/...
	@for m in $(MODULES); do (cd $$m && GOWORK=off $(GO) build $(BUILD) -o /dev/null ./...); done
	@for os in darwin windows; do (cd broker && GOWORK=off GOOS=$$os CGO_ENABLED=0 $(GO) vet ./...); done
	@.ci/govulncheck
	@PORTASK_CROSS=1 $(GO) test -count=1 -run TestNoFusedInstructions ./broker/compression/adaptive

.PHONY: kills
kills: ## kill the real server KILLS (20) times under load
	@$(GO) test -count=1 -v -timeout 60m ./loadgen/killtest

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (10s)
	@.ci/fuzz $(FUZZTIME) $(MODULES)

.PHONY: bench
bench: ## every Go benchmark, in the Go benchmark format
	@$(GO) test -run '^$$' -bench . -benchmem work

# The objectives' lane "policy" is `perflab policy check`: the adaptive policy on recorded costs, held against its bounds.
.PHONY: gate
gate: build ## the change against its base, counters, the objectives of configs/slo.yaml with the adaptive policy's
	@.ci/need strace strace
	@$(STAGE) 'gate' bin/perflab gate --suite ci --counters --objectives $(GATE)

# Status 3: undecided, since the machine was busy; the table says what.
.PHONY: selftest
selftest: build ## loadgen against targets of known behaviour: every defect found and quantified
	@bin/loadgen selftest --quiet || [ $$? = 3 ]

.PHONY: profile
profile: build ## take the profiles of profiles/ and both default.pgo anew
	@bin/perflab profile

.PHONY: nightly
nightly: race ## all tests under the race detector, 200 kills, long fuzzing, self-test of loadgen, gate
	@$(STAGE) '200 kills' $(MAKE) kills KILLS=200
	@$(STAGE) 'fuzz' $(MAKE) fuzz FUZZTIME=5m
	@$(STAGE) 'self-test of loadgen' $(MAKE) selftest
	@$(STAGE) 'gate' $(MAKE) gate

.PHONY: clean
clean: ## remove what the build made
	@rm -rf bin
