# Every target does its own set-up: an environment in .venv, and the package built in place. `make` lists the targets;
# the text behind "##" is what it shows.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests wait more than they compute, so there are more workers than cores. A worker that crashes ends the run: if it was
# started again, the run could hang. make test WORKERS=1
WORKERS ?= 4
PARALLEL := -n $(WORKERS) --max-worker-restart=0
# No C code runs in these, so a sanitizer has nothing to see.
PURE_PYTHON := $(wildcard tests/test_config*.py tests/test_cli_*.py tests/test_*benchmark*.py tests/fault_bench/test_*.py) \
	tests/test_catalogue.py tests/test_error*.py tests/test_logs.py tests/test_secrets.py tests/test_workers.py
# What a wheel could break: imports, bindings, each way of sending, and the command line. `make test` runs the rest.
WHEEL_TESTS := $(wildcard tests/test_bindings.py tests/test_producer.py tests/test_bulk*.py tests/arrow/test_arrow_append.py \
	tests/transactions tests/test_cli_send.py)
# What depends on the Python below it: the core and all that calls into the interpreter.
CORE_TESTS := $(wildcard tests/test_accumulator*.py tests/test_produce*.py tests/test_bulk*.py tests/test_sequence*.py \
	tests/test_autospec.py tests/test_buffer*.py tests/test_callback*.py tests/test_client_renewal.py \
	tests/test_completion.py tests/test_delivery_report.py tests/test_future.py tests/test_input.py \
	tests/test_interceptors.py tests/test_interpreter.py tests/test_metadata_updater.py tests/test_partition_pause.py \
	tests/test_partitioner.py tests/test_record*.py tests/test_serializers.py tests/test_threads.py \
	tests/test_topic_metadata.py tests/test_transport.py tests/transactions tests/arrow)

.PHONY: help demo test lint bench bench-stages bench-partitioning bench-grid budget docs options faults lifecycle stateful leaks fuzz sanitize tsan valgrind wheel test-pythons clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP)  ## send 336,776 flights to an embedded broker and read them back
	$(BIN)/python -m tests.flights build/flights.ndjson
	$(BIN)/fastprod send build/flights.ndjson --topic flights --key tailnum --embedded

test: $(STAMP)  ## run all tests, with a real Kafka if Java 17 and Maven are there; WORKERS=4
	$(BIN)/python -m pytest $(PARALLEL) --durations=10

lint: $(STAMP)  ## ruff, cython-lint, mypy, stubtest, and the GitHub workflows
	$(BIN)/pip install --quiet --group lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint src tests
	$(BIN)/mypy
	$(BIN)/stubtest fastprod.producer fastprod.bulk.bulk_future fastprod.internals.future fastprod.internals.open_producers fastprod.internals.partitioner --ignore-missing-stub
	$(BIN)/zizmor --offline --quiet .github
	if command -v actionlint > /dev/null; then actionlint; fi

# Beside plain C and the peers: 100 B without and with keys on a mock broker, 7 minutes. FORM=full: all workloads, a real
# broker and Java's producer too, some 25. Writes bench.json, .md and .svg into build/bench. make bench FORM=full ROUNDS=7
bench: $(STAMP)  ## rates, CPU and memory beside plain C and other clients; FORM=full or growth, ROUNDS=5
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m benchmarks $(or $(FORM),short) --rounds $(or $(ROUNDS),5)

bench-stages: $(STAMP)  ## what each step of a record costs
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m pytest -q -p no:cacheprovider benchmarks/stages

# KIP-794's own experiment and the claim of KIP-480, on three real brokers: about 20 minutes a round. Writes tables and a plot
# into build/partitioning. make bench-partitioning ROUNDS=3
bench-partitioning: $(STAMP)  ## latency with a slow broker, on three real brokers; ROUNDS=1
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m benchmarks.partitioning --rounds $(or $(ROUNDS),1)

# Rates over a grid of settings, to find cliffs: value size, batch.size, partitions, buffer.memory, linger. Some 10 minutes;
# FORM=full: more of each and a real broker, two hours. Tables and a heat map into build/grid. make bench-grid ROUNDS=5
bench-grid: $(STAMP)  ## rates over a grid of settings; FORM=full, ROUNDS=3
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m benchmarks.grid $(or $(FORM),short) --rounds $(or $(ROUNDS),3)

# What a record may cost in instructions, counted anew by valgrind: tests/instructions/budget.json, which the tests hold.
budget: $(STAMP)  ## count the instructions of a record anew, after a change to what it costs
	$(BIN)/python -m tests.instructions --write

# The documentation, as HTML in build/docs; a warning is an error.
docs: $(STAMP)  ## build the documentation into build/docs
	$(BIN)/pip install --quiet --group docs
	$(BIN)/sphinx-build -q -W --keep-going -n -d build/docs-cache docs build/docs

# The tables of options in docs/options.md, from the one in the code.
options: $(STAMP)  ## write the tables of docs/options.md from the one in the code
	$(BIN)/python -m tests.options_page

# make faults SEEDS=100 FIRST_SEED=1 ACKS=all
faults: $(STAMP)  ## break three real brokers by a seeded schedule; SEEDS=10, FIRST_SEED=1, ACKS=all
	$(BIN)/python -m tests.fault_bench --seeds $(or $(SEEDS),10) --first-seed $(or $(FIRST_SEED),1) --acks $(or $(ACKS),all)

# Interrupts, forks, exits and memory for the full figures; the tests have a short form.
lifecycle: $(STAMP)  ## interrupt, fork and end processes, in full
	FASTPROD_FULL=1 $(BIN)/python -m pytest -v -rP tests/lifecycle

# make stateful EXAMPLES=1000 SEED=5: the public API called in any order, against a model. A failure names its seed.
stateful: $(STAMP)  ## call the whole API in any order, against a model; EXAMPLES=500, SEED=random
	FASTPROD_STATEFUL_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest -q -s tests/test_producer_stateful.py \
		--hypothesis-seed=$(or $(SEED),random)

# make leaks RECORDS=50000000: what memory grows by with the records sent.
leaks: $(STAMP)  ## memory over many records; RECORDS=50000000
	FASTPROD_LEAKS_RECORDS=$(or $(RECORDS),50000000) $(BIN)/python -m pytest -q -s tests/test_leaks.py

# make fuzz SECONDS=600 SEED=5: options and records that nobody would think of; with atheris, if that is installed.
fuzz: $(STAMP)  ## arbitrary options and records; SECONDS=60, SEED=0
	$(BIN)/python -m tests.fuzz $(or $(SECONDS),60) $(or $(SEED),0)

# The tests that need no Kafka, with the extensions under ASan and UBSan, built and run outside this tree as the wheel is.
# Python's own leaks are not looked for; a report ends the run. Of the test left out, ASan reports what is none: threads of a
# forked child get stacks that threads of the parent had, and ASan has marked. Greenlets copy pieces of the stack away and
# back, marks and all, so their tests are left out as well.
sanitize: $(STAMP)  ## the tests that need no Kafka under ASan and UBSan
	$(BIN)/pip install --quiet --group build
	rm -rf build/sanitize
	$(BIN)/python -m build --sdist --outdir build/sanitize . > /dev/null
	$(PYTHON) -m venv build/sanitize/env
	build/sanitize/env/bin/pip install --quiet --upgrade pip
	build/sanitize/env/bin/pip install --quiet --group test
	FASTPROD_TESTS=1 FASTPROD_SANITIZE=1 FASTPROD_JOBS=2 build/sanitize/env/bin/pip install --quiet --no-cache-dir build/sanitize/*.tar.gz
	mkdir -p build/sanitize/tree && cp -r tests pyproject.toml build/sanitize/tree/
	cd build/sanitize/tree && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		FASTPROD_TESTS=1 PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:log_path=report \
		UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:log_path=report \
		../env/bin/python -m pytest -q $(PARALLEL) -m 'not kafka and not process_limits' $(PURE_PYTHON:%=--ignore %) \
		--ignore tests/test_leaks.py --ignore tests/test_instructions.py --ignore tests/lifecycle/test_programs.py \
		--ignore tests/test_greenlets.py --ignore tests/test_wsgi_servers.py \
		--deselect tests/test_producer_process.py::test_forks_under_load_harm_neither_parent_nor_child \
		|| { cat report.*; false; }

# The wheel is built from the sdist, named by auditwheel, and tested in an empty environment outside this tree,
# where tests/conftest.py leaves out what reads other files of it, and the tests that need fastprod_core_access.
wheel: $(STAMP)  ## build a wheel and test it in an empty environment
	$(BIN)/pip install --quiet --group build
	rm -rf dist wheelhouse build/wheel
	$(BIN)/python -m build --outdir dist .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel show dist/*.whl
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/pip install --quiet --upgrade pip
	build/wheel/env/bin/pip install --quiet --group test wheelhouse/*.whl
	mkdir -p build/wheel/tree && cp -r tests pyproject.toml build/wheel/tree/
	cd build/wheel/tree && ../env/bin/python -m pytest -q $(PARALLEL) -m 'not kafka and not slow' $(WHEEL_TESTS)

# The tests that need no Kafka on every Python that is supported and found here, or some of them on some:
# make test-pythons PYTHONS="3.10 3.13" TESTS="tests/test_bulk_append.py". TESTS=core: those of the core.
test-pythons: $(STAMP)  ## run the tests on every supported Python that is found; PYTHONS="3.10 3.13", TESTS=core
	$(BIN)/pip install --quiet --group build
	$(BIN)/python -m tests.pythons $(PYTHONS) -- $(PARALLEL) $(if $(filter core,$(TESTS)),$(CORE_TESTS),$(TESTS))

# Many threads on the core, with the extensions and a stand-in for librdkafka under TSan: make tsan SECONDS=600 SEED=5
tsan: $(STAMP)  ## many threads on the core under ThreadSanitizer; SECONDS=10, SEED=1
	$(BIN)/pip install --quiet --group build
	rm -rf build/tsan
	$(BIN)/python -m build --sdist --outdir build/tsan . > /dev/null
	FASTPROD_SANITIZE=thread FASTPROD_JOBS=2 $(BIN)/pip install --quiet --no-deps --no-cache-dir --target build/tsan/site \
		build/tsan/*.tar.gz
	gcc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-parameter -O1 -g -fsanitize=thread -fPIC -shared -Icsrc \
		tests/tsan/stub.c -o build/tsan/stub.so
	LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" FASTPROD_LIBRDKAFKA=build/tsan/stub.so \
		PYTHONPATH=build/tsan/site:. PYTHONSAFEPATH=1 \
		TSAN_OPTIONS=suppressions=tests/tsan/suppressions.txt:history_size=7:second_deadlock_stack=1 \
		setarch -R $(BIN)/python -m tests.tsan.workload $(or $(SECONDS),10) $(or $(SEED),1)

# A short run in every way of sending, under valgrind, which is the system's to install: make valgrind RECORDS=10000
valgrind: $(STAMP)  ## a short run under valgrind; RECORDS=10000
	PYTHONMALLOC=malloc valgrind --quiet --error-exitcode=9 --fair-sched=yes --num-callers=20 --suppressions=tests/valgrind.supp \
		--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
		$(BIN)/python -m tests.leaks $(or $(RECORDS),10000) 1

clean:  ## remove everything that was built
	rm -rf build dist wheelhouse .venv src/*.egg-info
	find src -name '*.so' -delete -o -name '*.c' -delete
	rm -f tests/core_access.c

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(STAMP): $(VENV)/bin/pip pyproject.toml $(SOURCES)
	$(BIN)/pip install --quiet --group test
	FASTPROD_JOBS=2 $(BIN)/pip install --quiet --editable .
	touch $@
