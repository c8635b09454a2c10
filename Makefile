# One recipe per task; CI calls `make test` and nothing else. `make help` lists them.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The cluster that `make demo` leaves running for a look around; `make demo-down` removes it.
DEMO_DIR ?= $(CURDIR)/target/demo
CLUSTER_TOOL := $(CURDIR)/target/cluster
HELM := $(CURDIR)/target/tools/helm
IMAGE_DIR := $(CURDIR)/target/images
# `own`: a cluster of our own, from tests/cluster. `current`: the one that kubectl points at. `kind`: one that kind makes.
CLUSTER ?= own
export GODWIT_CLUSTER_TOOL := $(CLUSTER_TOOL)
export GODWIT_HELM := $(HELM)
export GODWIT_IMAGES := $(IMAGE_DIR)

KUBERNETES := v1.34.4
VERSION_PACKAGE := k8s.io/component-base/version
GO_LDFLAGS := -s -w -X $(VERSION_PACKAGE).gitVersion=$(KUBERNETES) -X $(VERSION_PACKAGE).gitMajor=1 -X $(VERSION_PACKAGE).gitMinor=34

.PHONY: help
help: ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

.PHONY: build
build: ## the operator and worker binary, optimised
	cargo build --release --locked

.PHONY: fmt
fmt: ## format all sources
	cargo fmt
	cd tests/cluster && gofmt -w .

.PHONY: lint
lint: ## formatting and lints; warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cd tests/cluster && test -z "$$(gofmt -l .)"
	@if ! command -v cargo-deny >/dev/null; then echo "cargo-deny is not installed: licences and advisories were not checked"; exit 0; fi; \
	cargo deny --log-level error check bans licenses sources || exit 1; \
	if cargo deny --log-level off fetch db; then cargo deny check advisories; else echo "the advisory database cannot be reached: advisories were not checked"; fi

.PHONY: generate
generate: ## write the CRDs (also for the chart) and the reference pages anew from the code
	cargo run --quiet --locked -- crds --out crds
	mkdir -p charts/godwit/files/crds && cp crds/*.yaml charts/godwit/files/crds/
	GODWIT_BLESS=1 cargo test --quiet --locked --test generated_files

.PHONY: docs
docs: ## the sources' documentation, without warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet

.PHONY: test
test: lint docs test-pure test-postgres test-apiserver test-gauntlet test-chart test-node ## every test tier

.PHONY: test-pure
test-pure: postgres-server ## decisions, builders, golden traces: seconds
	cargo test --locked --lib --bins --example crm --test plan --test rooms_do_not_leak --test generated_files --test examples --test bugs

.PHONY: test-postgres
test-postgres: postgres-server ## the worker against real PostgreSQL servers
	cargo test --locked --test postgres --test faults --test hostile

.PHONY: test-apiserver
test-apiserver: $(CLUSTER_TOOL) ## the definitions and the operator against a real API server
	cargo test --locked --test definitions --test apiserver

.PHONY: test-gauntlet
test-gauntlet: $(CLUSTER_TOOL) ## the operator through faults of the API server: a seeded sample of plans
	cargo test --locked --test gauntlet

.PHONY: gauntlet
gauntlet: $(CLUSTER_TOOL) ## every write of four stories disturbed in every way, more than an hour; goes on where it was stopped
	GODWIT_GAUNTLET=full cargo test --locked --test gauntlet -- --nocapture

.PHONY: bugs
bugs: $(CLUSTER_TOOL) postgres-server ## seeds known bugs one at a time and shows that each is found, about an hour
	cargo test --locked --test bugs -- --ignored --nocapture

.PHONY: test-chart
test-chart: $(HELM) ## the chart: lint, schema, rendered output
	$(HELM) lint --strict charts/godwit
	cargo test --locked --test chart

.PHONY: test-node
test-node: $(CLUSTER_TOOL) $(HELM) images ## both demos, and bad input between them, on a real node
	cargo test --locked --test node -- --nocapture

.PHONY: bench
bench: postgres-server ## how fast it moves, against psql, pgcopydb and pg_dump; GODWIT_BENCH_SCALE=0.1 for a small one
	cargo bench --locked --bench moves

.PHONY: images
images: $(CLUSTER_TOOL) ## images without a registry: godwit and the demo's CRM
	cargo build --release --locked --bin godwit --example crm
	$(CLUSTER_TOOL) deps --size=node --image-build
	mkdir -p $(IMAGE_DIR)
	$(CLUSTER_TOOL) image build $(foreach list,base godwit godwit-crm,--from tests/cluster/images/$(list).json) --out $(IMAGE_DIR)/godwit.tar

.PHONY: demo
demo: $(CLUSTER_TOOL) $(HELM) images ## a CRM with live traffic moves cohort by cohort on a real cluster
	target/release/examples/crm demo --cluster $(CLUSTER) --dir $(DEMO_DIR)

.PHONY: demo-rollback
demo-rollback: $(CLUSTER_TOOL) $(HELM) images ## the second cohort's links break after its cutover, and Godwit brings it back
	target/release/examples/crm demo-rollback --cluster $(CLUSTER) --dir $(DEMO_DIR)

.PHONY: demo-down
demo-down: $(CLUSTER_TOOL) ## remove the demo's cluster: every process, mount and link it made
	@if [ "$(CLUSTER)" = own ]; then $(CLUSTER_TOOL) down --dir $(DEMO_DIR); \
	else target/release/examples/crm demo-down --cluster $(CLUSTER) --dir $(DEMO_DIR); fi

.PHONY: postgres-server
postgres-server:
	@if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql; \
	  else echo "PostgreSQL's server is missing: install the Debian package 'postgresql'" >&2; exit 1; fi; fi

# Tests are left out: `go vet` and `go test` compile all of Kubernetes once more.
$(CLUSTER_TOOL): $(filter-out %_test.go,$(wildcard tests/cluster/*.go)) tests/cluster/go.mod tests/cluster/go.sum
	cd tests/cluster && CGO_ENABLED=0 go build -trimpath -ldflags "$(GO_LDFLAGS)" -o $@ .

$(HELM): $(CLUSTER_TOOL)
	$(CLUSTER_TOOL) tools --out $(dir $@)
