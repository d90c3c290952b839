# Everything runs as root on Debian or Ubuntu with Go; what else is needed is installed by `make deps`.
# All that tests and demo do to the network happens in network namespaces that they make and remove.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
IMAGE    ?= sluice:$(VERSION)
BUILDER  ?= docker
LDFLAGS  := -s -w -X main.released=$(VERSION)
MODE     ?= iptables
FUZZTIME ?= 10s
N        ?= default
ALONE    ?= default
PATH     := $(PATH):/usr/sbin:/sbin

# program:package
DEMO_DEPS := iptables:iptables
TEST_DEPS := $(DEMO_DEPS) nft:nftables ipset:ipset etcd:etcd-server ip:iproute2 gcc:gcc chromium-headless-shell,chromium,google-chrome:chromium-headless-shell

# The suites with a real API server, and the packages of all others. TestCluster/ipvs and TestShippedIPVS are for the virtual machine, below;
# TestFaults/ipvs and TestSwitchingIPVS are for it, too, but run by hand: ipvs/README.md says how, and why.
CLUSTER  := -skip TestCluster/ipvs|TestFaults/ipvs|TestSwitchingIPVS|TestShippedIPVS ./e2e/cluster/... ./e2e/faults/... ./e2e/manifests/...
PACKAGES = $(shell $(GO) list ./... | grep -v -e /e2e/cluster -e /e2e/faults -e /e2e/manifests -e /e2e/vm -e /e2e/ipvs)

# The virtual machine with an older kernel, and what is tested in it.
VM        := $(CURDIR)/e2e/vm/run
VM_TESTS  := TestKernelIptables/nft/IPv4|^TestKernelNftables$$/IPv4|^TestKernelNftables$$/IPv6/affinity|^TestKernelNftablesChurn$$/IPv4
# Of the IPVS mode's scenarios all in IPv4 but one that takes minutes, and in IPv6 those that go through every rule;
# IPVS_TESTS=. IPVS_SKIP=none is all in both.
IPVS_TESTS ?= TestKernelIPVS/IPv4|TestKernelIsAsExplained/IPv4|TestKernelIPVS/IPv6/(matrix|a_pod_reaches_itself|source_ranges_drop|without_endpoints)|TestKernel[^I]
IPVS_SKIP  ?= thousands_of_endpoints
# The stories of the cluster suite that are about the same code in every mode are left to the other modes, in which they take less long.
IPVS_ALIKE ?= Health|Events|LostAPIServer|StartWaits
# Of the scenarios of mode nftables beside kube-proxy's mode ipvs some that need few changes: each costs kube-proxy seconds there.
NEIGHBOUR_TESTS ?= TestKernelNftablesBesideKubeProxy/ipvs/IPv4/(frontends_and_policies$$|a_pod_reaches|external_IPs_are_served)
VM_SUITES = -suite 'virtual machine: ./e2e/vm' \
	-suite 'kernel 6.1: -exec $(VM) -run $(VM_TESTS) ./e2e/kernel' \
	-suite 'beside kube-proxy in mode ipvs: -exec $(VM) -run $(NEIGHBOUR_TESTS) ./e2e/kernel' \
	-suite 'guards in kernel 6.1: -exec $(VM) -run TestKernelGuard/IPv4|TestKernelManyClients ./nftables' \
	-suite 'IPVS: -exec $(VM) -run $(IPVS_TESTS) -skip //$(IPVS_SKIP) ./e2e/ipvs -args -sluice=$(CURDIR)/bin/sluice' \
	-suite 'IPVS cluster: -exec $(VM) -run TestCluster/ipvs -skip TestCluster/ipvs/($(IPVS_ALIKE)) ./e2e/cluster -args -sluice=$(CURDIR)/bin/sluice' \
	-suite 'IPVS as shipped: -exec $(VM) -run TestShippedIPVS ./e2e/manifests -args -sluice=$(CURDIR)/bin/sluice -judges=$(CURDIR)/bin/judges' \
	-suite 'clock: -exec $(VM) -run TestFaults/nftables/ClockJump ./e2e/faults -args -sluice=$(CURDIR)/bin/sluice'

# What is released for each of these: the binary, what it consists of, and all licences.
ARCHES   := amd64 arm64

.PHONY: all build lint vuln cross reproducible image judges test kernel cluster vm shell-vm demo bench fuzz pictures deps clean help
.SILENT:

all: build lint test ## build, lint and test

build: ## bin/sluice
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/sluice ./cmd/sluice

lint: ## go vet and golangci-lint
	$(GO) vet ./...
	$(GO) tool -modfile=hack/tools/go.mod golangci-lint run ./...
	cd e2e/judges && $(GO) vet ./... && $(GO) tool -modfile=../../hack/tools/go.mod golangci-lint run ./...

vuln: ## known vulnerabilities in what the binary uses
	$(GO) run ./hack/vuln ./cmd/sluice

cross: ## bin/release: the binary for amd64 and arm64, reproducible, each with its bill of materials and licences
	mkdir -p bin/release
	for arch in $(ARCHES); do \
		out=bin/release/sluice-linux-$$arch; \
		VERSION=$(VERSION) GOARCH=$$arch hack/build $$out && \
		$(GO) run ./hack/sbom -version $(VERSION) -bom $$out.cdx.json -licences $$out.licences.txt $$out || exit 1; \
	done
	cd bin/release && sha256sum sluice-linux-* >SHA256SUMS

reproducible: ## the same source makes the same bytes, the second time in another folder and from nothing
	$(GO) test -count=1 -timeout 20m -run SameSource ./e2e/release -from-nothing

image: ## the container image; IMAGE=sluice:VERSION BUILDER=docker, or podman or buildah
	$(BUILDER) build --build-arg VERSION=$(VERSION) --tag $(IMAGE) .

judges: ## bin/judges: the rules of Prometheus, Grafana and kustomize, for tests
	$(GO) -C e2e/judges build -o ../../bin/judges .

test: build judges deps apiserver ## every suite, with the race detector; a skipped test is a failed one
	$(GO) run ./hack/testsum \
		-suite 'unit, property and kernel: -race $(PACKAGES)' \
		-suite 'cluster: $(CLUSTER)' \
		-suite 'judges: -C e2e/judges ./...' \
		$(VM_SUITES)

kernel: deps e2e/bin/kube-proxy ## only what needs the kernel: scenarios packet by packet, golden files loaded for real
	$(GO) run ./hack/testsum -suite 'kernel: -run Kernel $(PACKAGES)'

cluster: deps apiserver ## only the cluster suite: a real API server, the real binary, real packets
	$(GO) run ./hack/testsum -suite 'cluster: $(CLUSTER)'

vm: build judges deps apiserver ## only what runs in a virtual machine, with Debian's kernel 6.1
	$(GO) run ./hack/testsum $(VM_SUITES)

shell-vm: ## a shell in that machine, over these files; what it writes is lost
	$(VM) bash

# Where the kernel has no IPVS that mode is shown in the virtual machine.
demo: build ## see Sluice work in private namespaces; MODE=iptables
	hack/deps $(DEMO_DEPS)
	$(GO) build -o bin/demo ./e2e/demo
	$(if $(filter ipvs,$(MODE)),$(if $(wildcard /proc/net/ip_vs),,echo 'This kernel has no IPVS: the demo runs in a virtual machine.'; $(VM))) bin/demo -mode $(MODE) -sluice bin/sluice

# BENCHFLAGS holds more flags, see `go run ./e2e/bench -help`. Where the kernel has no IPVS that mode is measured in the virtual machine.
bench: build deps apiserver ## Sluice and kube-proxy side by side, into docs/benchmarks.md; MODE=nftables N="1000 5000" ALONE="30000 5000x50" BACKENDS="nft legacy"
	$(GO) build -o bin/bench ./e2e/bench
	$(if $(filter ipvs,$(MODE)),VM_OUT=docs VM_LIMIT=2h $(VM)) bin/bench -mode $(MODE) -n "$(N)" -alone "$(ALONE)" -backends "$(BACKENDS)" $(BENCHFLAGS)

fuzz: ## every fuzz target for FUZZTIME=10s
	for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

pictures: deps ## docs/status.png and the like: the status page in a browser
	$(GO) test -count=1 -run TestBrowserPictures ./proxy/status -args -screenshots=$(CURDIR)/docs

deps: ## install missing packages
	hack/deps $(TEST_DEPS)

apiserver: e2e/bin/kube-apiserver e2e/bin/kube-proxy

e2e/bin/%: e2e/apiserver/go.mod
	echo "building $* (some minutes the first time)"
	version=$$($(GO) -C e2e/apiserver list -m -f '{{.Version}}' k8s.io/kubernetes); \
	$(GO) -C e2e/apiserver build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$version" \
		-o ../bin/$* k8s.io/kubernetes/cmd/$*

clean: ## remove what was built
	rm -rf bin e2e/bin

help: ## this list
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s  %s\n", $$1, $$2 }' Makefile
