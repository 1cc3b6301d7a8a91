#!/usr/bin/env bash
# Checks style and types, and runs the tests; sets up on first use. Arguments go to pytest: scripts/test.sh -k ghost
# scripts/test.sh --quick leaves out tests that start a process or a training run, and files that take long.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
