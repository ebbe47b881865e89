# Everything that one does with a checkout. Needs Python 3.11 or 3.12, Java 17 or newer, and Maven.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test bench soak memory fuzz lint format install kafka debezium proto freeze clean jars \
	model sbom bill
MAKEFLAGS += --no-print-directory --no-builtin-rules

PORT ?= 9092
ARGS ?=
SECONDS ?= 60

UV_VERSION := 0.13.9
# Without a fitting Python, any other one will do to install uv, which then fetches a fitting one.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
endif

RUN := .venv/bin/python -m
UV := build/uv/bin/uv
SYNC := $(if $(PYTHON),UV_PYTHON=$(PYTHON)) $(UV) sync --frozen --quiet
PROTOC = $(RUN) grpc_tools.protoc -Iproto --python_out=$(1) --pyi_out=$(1) proto/headrace/v1/*.proto
say = @echo "── $(1)"

# Each of these files says that a step is done; what it depends on says when to do it again.
UV_DONE := build/uv/.$(UV_VERSION)
RUNTIME_DONE := .venv/.runtime
ALL_DONE := .venv/.all
RIVALS_DONE := build/rivals/.done
JARS_DONE := build/jars/.done
DEBEZIUM_DONE := build/debezium/.done
SBOM ?= build/sbom.json
CYCLONEDX := org.cyclonedx:cyclonedx-maven-plugin:2.9.1

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(RUNTIME_DONE) $(JARS_DONE) ## documents in, searchable out, workers killed, nothing lost
	@exec $(RUN) harness.demo $(ARGS)

test: $(ALL_DONE) $(JARS_DONE) ## run all tests (ARGS="-k words" for some)
	$(call say,Tests)
	@exec $(RUN) pytest --numprocesses 2 --dist loadfile $(ARGS)

bench: $(ALL_DONE) $(JARS_DONE) $(RIVALS_DONE) ## measure throughput and freshness, beside rivals
	@exec env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(RUN) benchmarks $(ARGS)

soak: $(ALL_DONE) $(JARS_DONE) ## the long fault runs
	@exec $(RUN) harness.soak $(ARGS)

memory: $(ALL_DONE) $(JARS_DONE) ## memory under a million documents and whatever stops
	@exec env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(RUN) harness.memory $(ARGS)

fuzz: $(ALL_DONE) ## broken input into every decoder, SECONDS=60 for each
	@exec $(RUN) tests.fuzz --seconds $(SECONDS) $(ARGS)

lint: $(ALL_DONE) ## check style, types and generated code
	$(call say,ruff)
	@$(RUN) ruff check --quiet
	@$(RUN) ruff format --check --quiet || { echo "Run make format."; exit 1; }
	$(call say,mypy)
	@$(RUN) mypy --no-error-summary .
	$(call say,Generated code)
	@rm -rf build/proto && mkdir -p build/proto
	@$(call PROTOC,build/proto)
	@for made in build/proto/headrace/v1/*; do \
		cmp -s $$made headrace/v1/$${made##*/} || { echo "Run make proto."; exit 1; }; done

format: $(ALL_DONE) ## format the code and fix what can be fixed
	@$(RUN) ruff check --quiet --fix
	@$(RUN) ruff format --quiet

install: $(ALL_DONE) jars model ## create .venv with everything, fetch jars and model

kafka: $(RUNTIME_DONE) $(JARS_DONE) ## a real Apache Kafka in the foreground (PORT=9092)
	@exec $(RUN) harness.broker --port $(PORT) --folder data/kafka-$(PORT)

debezium: $(ALL_DONE) $(JARS_DONE) $(DEBEZIUM_DONE) ## record a PostgreSQL's changes for the tests (needs PostgreSQL)
	@exec $(RUN) harness.debezium $(ARGS)

proto: $(ALL_DONE) ## generate headrace/v1 from proto/
	@$(call PROTOC,.)

freeze: $(ALL_DONE) ## keep today's messages as those of this version
	@exec $(RUN) harness.schemas

sbom: bill ## list what runs, with versions and hashes: build/sbom.json, build/sbom-kafka.json
	@mvn --quiet --batch-mode -f deploy/kafka/pom.xml $(CYCLONEDX):makeBom \
		-DoutputFormat=json -DoutputDirectory=$(CURDIR)/build -DoutputName=sbom-kafka > build/mvn.log 2>&1 \
		|| { cat build/mvn.log; exit 1; }

bill: $(UV_DONE)
	@$(UV) export --frozen --quiet --no-dev --extra openvino --extra registry \
		--preview-features sbom-export --format cyclonedx1.5 --output-file $(SBOM)

clean: ## remove what was built and installed; data/ stays
	@rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

jars: $(JARS_DONE)

model: $(ALL_DONE) $(JARS_DONE)
	$(call say,The default model)
	@.venv/bin/headrace model export

$(UV_DONE):
	$(call say,uv $(UV_VERSION))
	@$(or $(PYTHON),python3) -m venv --clear build/uv
	@build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(RUNTIME_DONE): pyproject.toml uv.lock $(UV_DONE)
	$(call say,Python packages to run it)
	@# Inexact: what a full install has put there stays.
	@$(SYNC) --inexact --extra openvino
	@touch $@

$(ALL_DONE): pyproject.toml uv.lock $(UV_DONE)
	$(call say,All Python packages: several GB of them for torch; minutes the first time)
	@$(SYNC) --all-extras --all-groups
	@touch $(RUNTIME_DONE) $@

$(RIVALS_DONE): $(wildcard benchmarks/rivals/requirements/*.txt) $(ALL_DONE)
	$(call say,The rivals in environments of their own: minutes the first time)
	@set -e; for own in $(basename $(notdir $(wildcard benchmarks/rivals/requirements/*.txt))); do \
		$(UV) venv --quiet --clear --python .venv/bin/python build/rivals/$$own; \
		$(UV) pip sync --quiet --python build/rivals/$$own benchmarks/rivals/requirements/$$own.txt; \
	done
	@touch $@

$(JARS_DONE): deploy/kafka/pom.xml
	$(call say,Apache Kafka and the default model from Maven Central)
	@rm -rf build/jars
	@# Maven writes its errors to standard output, and on some systems escapes, however quiet.
	@mvn --quiet --batch-mode -f deploy/kafka/pom.xml package > build/mvn.log 2>&1 \
		|| { cat build/mvn.log; exit 1; }
	@touch $@

$(DEBEZIUM_DONE): deploy/debezium/pom.xml
	$(call say,Kafka Connect and Debezium from Maven Central)
	@rm -rf build/debezium
	@mvn --quiet --batch-mode -f deploy/debezium/pom.xml package > build/mvn.log 2>&1 \
		|| { cat build/mvn.log; exit 1; }
	@touch $@
