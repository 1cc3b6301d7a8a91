#!/usr/bin/env bash
# Checks style and types, and runs the tests; sets up on first use. Arguments go to pytest: scripts/test.sh -k ghost
# scripts/test.sh --quick leaves out tests that start a process or a training run, and files that take long.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# The calls between the modules of the benchmarks, which no test runs as a whole.
MYPYPATH=scripts/benchmarks .venv/bin/mypy scripts/benchmarks --allow-untyped-defs --no-warn-unused-ignores \
    --disable-error-code={arg-type,assignment,func-returns-value,union-attr}
exec .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
