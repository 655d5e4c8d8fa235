# Every target prepares the machine itself (tools/setup.sh); the second time that takes no time.
PYTHON := .venv/bin/python
SECONDS ?= 10# of each fuzzer
TORTURE_S ?= 600# of ipam-torture
# They fork: in a process where gRPC has had clients, its handlers turn for ever in the child.
FORKING := tests/kernel/test_crash.py tests/kernel/test_drift.py tests/kernel/test_failures.py
CONFIG ?= kind-config.yaml# of kind; conf/kind-dual.yaml and conf/kind-ipv6.yaml are others
ABLE := $(PYTHON) -m tools.kind able# to have a cluster

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test test-full check launcher launcher-test kernel runtimes \
	slow fuzz ipam-torture bench bench-cluster bench-failover bench-ipamd bench-network bench-services \
	dist image install lock kind kind-down cluster cluster-test cluster-ipv6 e2e e2e-all \
	setup-demo setup-cluster setup-test setup-e2e clean

help: ## say what can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: setup-demo launcher ## two isolated namespaces get addresses and reach each other and beyond
	$(PYTHON) -m cli demo

demo-cluster: setup-cluster launcher ## three hosts get addresses from etcd, and their containers reach each other
	$(PYTHON) -m cli demo-cluster

test test-full: export CONFIG = conf/kind-dual.yaml

test: setup-demo ## what every change must pass (under an hour cold, minutes warm)
	tools/steps.sh 'setup-test 1500' 'check 300' 'launcher-test 300' 'kernel 2400' \
		'runtimes 1200' 'fuzz 300' 'setup-e2e 1500 $(ABLE)' 'cluster 1200 $(ABLE)' \
		'e2e 900 $(ABLE)' 'kind-down 120'

test-full: test ## also what takes long: hours of churn, power loss, the whole failure matrix
	tools/steps.sh 'slow 14400' 'cluster-test 3600 $(ABLE)' 'e2e-all 7200 $(ABLE)' \
		'cluster-ipv6 2400 $(ABLE)' 'kind-down 120'

check: setup-demo ## format, lint, types, import contracts, unit tests: under a minute
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -q -m 'not cluster' tests/unit tests/cluster

launcher: ## build the program that runtimes execute
	$(MAKE) -s -C cni/launcher

launcher-test: ## the launcher's own tests, under sanitizers
	$(MAKE) -s -C cni/launcher test-san

kernel: setup-test launcher ## real namespaces, links and packets
	$(PYTHON) -m pytest -q -m 'not slow' $(FORKING)
	$(PYTHON) -m pytest -q -m 'not slow' $(FORKING:%=--ignore=%) tests/kernel

runtimes: setup-test launcher ## cnitool, podman, containerd, and the reference plugins
	$(PYTHON) -m pytest -q -m 'not slow' tests/runtimes

slow: setup-test launcher
	$(PYTHON) -m pytest -q -m slow $(FORKING)
	$(PYTHON) -m pytest -q -m slow $(FORKING:%=--ignore=%) tests

fuzz: setup-test launcher ## hostile input to the launcher and the agent, for a bounded time
	$(MAKE) -s -C cni/launcher fuzz SECONDS=$(SECONDS)
	@mkdir -p build/fuzz
	@for program in tests/fuzz/fuzz_*.py; do \
		echo "$$program, $(SECONDS) s"; log=build/fuzz/$$(basename $$program).log; \
		$(PYTHON) $$program -max_total_time=$(SECONDS) -artifact_prefix=build/fuzz/ \
			> $$log 2>&1 || { tail -n 40 $$log; exit 1; }; done

ipam-torture: setup-demo ## cluster IPAM in miniature, everything failing at random
	ISTHMUS_TORTURE_S=$(TORTURE_S) $(PYTHON) -m pytest -q -s tests/unit/ipam/test_cluster_model.py

bench: setup-test launcher ## side by side with the reference plugins, and bench-ipamd
	$(PYTHON) bench/run
	$(PYTHON) bench/ipamd.py

bench-cluster: kind image ## on that cluster: bursts of pods, throughput, time to Ready
	$(PYTHON) bench/kubernetes.py

bench-network: setup-test launcher ## what each packet takes; 1,000 nodes: routes, and an agent's memory
	$(PYTHON) bench/packets.py
	$(PYTHON) bench/routes.py
	$(PYTHON) bench/large.py

bench-services: setup-test launcher ## Services, beside kube-proxy on the same API objects
	$(PYTHON) bench/services.py

bench-failover: setup-test ## who answers for a load balancer's address, and when, after a failure
	$(PYTHON) bench/failover.py

bench-ipamd: setup-test launcher ## a thousand nodes and one etcd; ADD without etcd
	$(PYTHON) bench/ipamd.py

dist: setup-demo launcher ## the standalone program, for hosts without Python
	tools/dist.sh

image: dist ## the container image, as an archive: no registry, no container engine
	$(PYTHON) tools/image.py

install: setup-demo launcher ## put plugin and configuration where runtimes look
	$(PYTHON) -m cli install

kind: setup-demo ## a real Kubernetes cluster of three nodes, without a network (CONFIG=...)
	$(PYTHON) -m tools.kind up --config $(CONFIG)

kind-down: setup-demo ## take that cluster down; nothing of it stays
	$(PYTHON) -m tools.kind down

cluster: image ## on that cluster: what every change must pass of cluster-test
	ISTHMUS_KIND_CONFIG=$(CONFIG) $(PYTHON) -m pytest -q -m 'cluster and not slow' tests/cluster

cluster-test: image ## on that cluster: the programs' network and, to compare, the reference's
	ISTHMUS_KIND_CONFIG=$(CONFIG) $(PYTHON) -m pytest -q tests/cluster

cluster-ipv6: ## cluster and e2e with IPv6 alone
	$(MAKE) cluster e2e CONFIG=conf/kind-ipv6.yaml

e2e: kind setup-e2e image ## Kubernetes' own tests of the network, with isthmus (E2E='--network reference')
	$(PYTHON) -m tests.cluster.e2e $(E2E)

e2e-all: ## all of them that can run on such clusters, with isthmus's own Services
	$(MAKE) e2e E2E='--network services'
	$(MAKE) e2e E2E='--network services --specs dual-stack'
	$(MAKE) e2e E2E='--network services --specs others'
	$(MAKE) e2e CONFIG=conf/kind-zones.yaml E2E='--network services --specs zones'

lock: setup-demo ## write requirements.lock anew from pyproject.toml
	tools/lock.sh

setup-demo:
	@tools/setup.sh demo

setup-cluster:
	@tools/setup.sh cluster

setup-test:
	@tools/setup.sh test

setup-e2e:
	@tools/setup.sh e2e

clean: ## remove all that was built here
	$(MAKE) -s -C cni/launcher clean
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
