# `make` lists the targets. Go and, where a target says so, root are all that is
# needed; only `make test`, `make bench`, `make test-packages` and `make apt-packages` install anything.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# sudo's PATH, and CI's, may lack Go.
export PATH := $(PATH):/usr/local/go/bin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/nexthopd/nexthopd/internal/version.release=$(VERSION)
FUZZTIME ?= 60s

# A test that hangs ends with its goroutines printed, well within CI's hour.
UNIT_TIMEOUT := 15m
E2E_TIMEOUT := 40m

unit_packages = unit=$$(go list ./... | grep -v '/e2e\(/\|$$\)')

STATICCHECK := go tool -modfile=internal/tools/go.mod staticcheck

# need_root NAME[,HINT]: ends the recipe with one clear line when it isn't root that runs it.
need_root = [ "$$(id -u)" -eq 0 ] || { echo "make $(1): needs root, for network namespaces: run sudo make $(1)$(2)" >&2; exit 1; }

without_root = ; what runs without root: make test-unit

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

.PHONY: build
build: ## static binaries in ./bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# What the lab of demo and e2e runs: built once here, not once per test.
export NEXTHOPD_BIN := $(CURDIR)/bin
build_lab = CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/... ./e2e/nva/nvasim ./e2e/demo

# The demo replaces the shell, so that Ctrl-C reaches it and its exit status is make's.
# HOLD and NVA reach it through the environment.
.PHONY: demo
demo: ## two NVAs, one ECMP route, on this machine (root; HOLD=1 keeps the lab, NVA=frr takes FRR)
	@$(call need_root,demo)
	@$(build_lab)
	@exec bin/demo

# BENCH=full adds a million prefixes; BENCH=go runs the Go benchmarks instead, those of
# the kernel included where it runs as root. BENCH_FLAGS: bin/bench -help. DOCS=1 puts the
# report into the pages that have a place for it.
RUNS ?= 3
bench_sizes = 1000,10000,100000$(if $(filter full,$(BENCH)),$(comma)1000000)
comma := ,

.PHONY: bench
bench: ## nexthopd, BIRD 2 and FRR side by side (root; BENCH=full: 1M prefixes; BENCH=go: Go benchmarks)
ifeq ($(BENCH),go)
	@go test -run '^$$' -bench . -benchmem ./agent/... ./fib/...
else
	@$(call need_root,bench)
	@internal/tools/apt-packages
	@$(build_lab) ./e2e/bench
	@exec bin/bench -n $(bench_sizes) -runs $(RUNS) $(if $(DOCS),-docs $$(grep -l 'make bench writes' README.md docs/*.md | paste -sd,)) $(BENCH_FLAGS)
endif

# Both parts run even if the first fails. NEXTHOPD_REQUIRE_ROOT makes a test fail where
# it would skip itself for want of root. The packages with -race may run two at a time:
# none of them asserts on elapsed time. e2e measures traffic with real daemons, so its
# packages have the machine to themselves and go without -race, which slows the code
# under test several times.
.PHONY: test
test: ## all tests, after installing the Debian packages they need (root)
	@$(call need_root,test,$(without_root))
	@internal/tools/apt-packages
	@export NEXTHOPD_REQUIRE_ROOT=1; failed=0; \
	$(unit_packages); \
	go test -race -count=1 -timeout $(UNIT_TIMEOUT) $$unit || failed=1; \
	{ $(build_lab) && go test -count=1 -p 1 -timeout $(E2E_TIMEOUT) ./e2e/...; } || failed=1; \
	exit $$failed

# The test without SOAK takes seconds and is part of `make test`.
SOAK ?= 10m
.PHONY: soak
soak: ## two good NVAs, a hostile and a flapping one for SOAK (10m): nothing is lost, nothing grows (root)
	@$(call need_root,soak)
	@$(build_lab)
	@SOAK=$(SOAK) NEXTHOPD_REQUIRE_ROOT=1 go test -count=1 -v -timeout 24h -run '^TestSoak$$' ./e2e/

.PHONY: test-unit
test-unit: ## what runs without root, with -race; tests that need root skip themselves
	@$(unit_packages); go test -race -timeout $(UNIT_TIMEOUT) $$unit

.PHONY: test-netns
test-netns: ## only the tests in network namespaces; a skipped one is a failure (root)
	@$(call need_root,test-netns,$(without_root))
	@$(build_lab)
	@pkgs=$$(go list -f '{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... | \
		awk '/internal\/netnstest|\/e2e/ {print $$1}'); \
	NEXTHOPD_REQUIRE_ROOT=1 go test -count=1 -p 1 -timeout $(E2E_TIMEOUT) $$pkgs

.PHONY: docs
docs: ## the pages of docs/ that are lists of what the code knows: events, metrics, alerts
	@go run ./packaging/generate -docs docs

.PHONY: packages
packages: ## deb and rpm for amd64 and arm64 in ./dist, the same bytes for the same commit
	@VERSION='$(VERSION)' packaging/build dist

# Not with `make test`: it builds the packages, and the first time in a week two Debian
# installations of some hundred megabytes (in NEXTHOPD_ROOTS, else the user's cache).
.PHONY: test-packages
test-packages: ## install the packages in Debian 12 and 13 under systemd, with FRR outside (root)
	@$(call need_root,test-packages)
	@internal/tools/apt-packages
	@NEXTHOPD_REQUIRE_ROOT=1 go test -count=1 -timeout $(E2E_TIMEOUT) ./packaging/...

# Minutes, so not with `make test`, which has the same for seconds.
SOAK ?= 10m
.PHONY: soak-bfd
soak-bfd: ## eight BFD sessions of 3 x 50 ms while 100,000 prefixes come and go, for SOAK (10m) without a false alarm (root)
	@$(call need_root,soak-bfd)
	@$(build_lab)
	@NEXTHOPD_REQUIRE_ROOT=1 NEXTHOPD_BFD_SOAK=$(SOAK) go test -count=1 -v -timeout 24h -run '^TestBFDSoak$$' ./e2e

.PHONY: apt-packages
apt-packages: ## install the Debian packages that the tests need, no daemon started
	@internal/tools/apt-packages

# Every check runs, so that one run shows all there is to mend.
.PHONY: lint
lint: ## gofmt, go vet, staticcheck (pinned in internal/tools/go.mod), tidy modules
	@failed=0; \
	check() { echo "lint: $$*"; "$$@" || failed=1; }; \
	formatted() { local files; files=$$(gofmt -s -l .) && { [ -z "$$files" ] || { echo "not gofmt'ed:" $$files; return 1; }; }; }; \
	check formatted; \
	check go vet ./...; \
	check $(STATICCHECK) ./...; \
	check go mod tidy -diff; \
	check go -C internal/tools mod tidy -diff; \
	exit $$failed

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (60s)
	@targets=$$(grep -rH --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]*' . | sort) || { echo "make fuzz: no fuzz target found" >&2; exit 1; }; \
	while IFS=: read -r file func; do \
		name=$${func#func }; dir=$$(dirname "$$file"); \
		echo "fuzz: $$name in $$dir"; \
		go test -run='^$$' -fuzz="^$$name\$$" -fuzztime=$(FUZZTIME) "$$dir" </dev/null; \
	done <<<"$$targets"

GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
.PHONY: vulncheck
vulncheck: ## known vulnerabilities of what is linked in; needs the network (docs/dependencies.md)
	@go run $(GOVULNCHECK) ./cmd/...

.PHONY: clean
clean: ## remove what the targets above made
	rm -rf bin dist
