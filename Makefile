# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Go's own packages install to this folder, which a root shell's PATH may lack.
export PATH := $(PATH):/usr/local/go/bin

# Programs are linked statically, so that they run on any machine.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w'

# Which patched QEMU: a folder of qemu-patches, and the guest's architecture in
# QEMU's words. qemu.sh and the lab of the tests read them.
SERIES ?= 10.0
TARGET ?= x86_64
export FBPP_SERIES := $(SERIES)
export FBPP_TARGET := $(TARGET)
QEMU := ./qemu-patches/qemu.sh

# Test packages that boot guests. They run one after the other.
E2E := ./tests/bare ./tests/e2e ./tests/stock ./tests/adversary ./tests/conformance/e2e \
	./tests/libvirt
# Test packages that boot a whole Debian and take too long for each submission.
BOOT := ./tests/systemd
# Test packages that boot many guests, which take long as well.
INTROSPECT := ./tests/introspect

# What is tested in guests for arm64: the driver itself, and migrations with it.
ARM64_TESTS := '^TestDriverInTheGuest$$|ARM64|^TestFreeMemoryIsNotSent$$/./driver'

##@ To see it

.PHONY: demo
demo: machine qemu-build ## migrate a guest with hints off and on, and compare
	@go run ./tests/demo $(DEMO_FLAGS)

.PHONY: bench bench-quick
bench: machine qemu-build ## measure every load by every method, for hours; can be interrupted
	@go run ./tests/bench $(BENCH_FLAGS)
bench-quick: machine qemu-build ## measure what tells most, in some minutes
	@go run ./tests/bench --quick $(BENCH_FLAGS)

##@ To work on it

.PHONY: build
build: go ## build fbppd, fbppctl, fbpp-agent and fbpp-conform into build/
	@mkdir -p build
	@$(GO_BUILD) -o build/ ./cmd/...

.PHONY: test
test: machine lint generate-check qemu-build test-unit test-introspect test-e2e ## all tests

.PHONY: test-unit
test-unit: go ## tests that need no guest, with the race detector, and the seeds of the fuzzers
	@others=$$(go list $(E2E) $(INTROSPECT) $(BOOT)); \
		go test -race -timeout 30m $$(go list ./... | grep -vxF "$$others")

.PHONY: test-e2e
test-e2e: machine qemu-build ## driver tests in guests of each kernel, and live migrations
	@go test -v -p 1 -count=1 -timeout 90m $(E2E_FLAGS) $(E2E)

.PHONY: test-arm64
test-arm64: export FBPP_TARGET := aarch64
test-arm64: machine ## the same in guests for arm64, emulated; takes some minutes
	@$(QEMU) build
	@go test -v -count=1 -timeout 60m -tags aarch64 -run $(ARM64_TESTS) $(E2E_FLAGS) ./tests/e2e

.PHONY: test-arm64-host
test-arm64-host: go ## unit tests of the library and the device as programs for arm64, emulated
	@./tests/scripts/arm64-host.sh

.PHONY: test-series
test-series: machine ## move guests between the QEMUs of all series; builds those first
	@for base in qemu-patches/*/BASE; do \
		$(QEMU) --series "$$(basename "$$(dirname "$$base")")" build; \
	done
	@go test -v -count=1 -timeout 60m -tags series -run '^TestFromOneSeriesToAnother$$' \
		$(E2E_FLAGS) ./tests/bare

.PHONY: test-secureboot
test-secureboot: machine qemu-build ## guests under Secure Boot: OVMF, shim, GRUB; some minutes
	@./tests/scripts/secureboot.sh $(E2E_FLAGS)

.PHONY: test-introspect
test-introspect: machine ## compare what the host sees of a guest with the guest's own view
	@go test -v -count=1 -timeout 60m $(INTROSPECT)

.PHONY: model
model: machine ## check the model: our order loses no write, each rejected one does
	@go run ./tests/model/fbpp-model

.PHONY: soak
soak: machine qemu-build qemu-build-sanitize ## all that is random at full length, for hours; SEED=N
	@./tests/scripts/soak.sh $(SEED)

.PHONY: newest-kernel
newest-kernel: machine qemu-build ## test the kernels that Debian has now; KERNEL="suite/package..."
	@./tests/scripts/newest-kernel.sh $(KERNEL)

.PHONY: lint
lint: go ## what a reviewer should not have to look for
	@./tests/scripts/lint.sh

.PHONY: generate
generate: go ## make the eBPF objects and their Go code anew (needs clang)
	@go generate ./...

.PHONY: generate-check
generate-check: machine ## compare the committed eBPF objects with their sources
	@./tests/scripts/generated.sh

.PHONY: bench-vring
bench-vring: go ## round trips through virtqueues, beside libvhost-user
	@for round in 1 2 3 4 5 6; do go test -run '^$$' -bench . ./tests/bench/vring || exit 1; done

##@ The patched QEMU

.PHONY: qemu-build
qemu-build: ## build the one for tests (SERIES=10.0 TARGET=x86_64), unless the cache has it
	@$(QEMU) build

.PHONY: qemu-build-operator
qemu-build-operator: ## build the one for operators, without what is for tests only
	@$(QEMU) --operator build

.PHONY: qemu-build-sanitize
qemu-build-sanitize: ## build one with sanitizers, for the tests of hostile backends
	@$(QEMU) --sanitize build

.PHONY: qemu-check
qemu-check: ## lint the series, apply it to a clean tree, compare with a refresh
	@$(QEMU) check

.PHONY: qemu-bisect
qemu-bisect: ## build after each patch
	@$(QEMU) bisect

##@ Packages

.PHONY: packages packages-check packages-boot packages-qemu packages-qemu-check
packages: go ## make fbppd and fbpp-agent as .deb and .rpm, into build/packages
	@./contrib/packaging/build.sh build/packages
packages-check: machine ## make them twice, compare, install and purge them on new Debians
	@./contrib/packaging/test.sh $(SUITES)
packages-boot: machine qemu-build ## boot Debians with the packages in them, and migrate them
	@go test -v -count=1 -timeout 90m $(BOOT) $(BOOT_FLAGS)
packages-qemu: ## make Debian's QEMU with the series as a .deb, which takes long
	@./contrib/packaging/qemu.sh build/packages
packages-qemu-check: machine ## install that beside Debian's QEMU, compare and purge it
	@./contrib/packaging/qemu-test.sh build/packages

##@ Other

.PHONY: clean
clean: ## remove what was built here; the cache with QEMU and the kernels stays
	@rm -rf build

.PHONY: help
help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s:\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Preconditions, each with one line that says what is wrong.
.PHONY: machine go
machine:
	@./tests/scripts/machine.sh
go:
	@./tests/scripts/machine.sh go
