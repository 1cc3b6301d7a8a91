#!/usr/bin/env bash
# Tests the lowest version of every dependency that setup.cfg admits, together, in an environment made of
# them, .venv-lowest:
#   scripts/lower_bounds.sh [pytest's arguments]
# Takes minutes, and is not part of scripts/test.sh. A bound that fails here is raised in setup.cfg.
set -euo pipefail
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

.venv/bin/python - >.venv/lowest.txt <<'PYTHON'
import configparser
import re

config = configparser.ConfigParser()
config.read("setup.cfg")
extras = config["options.extras_require"]
declared = "\n".join([config["options"]["install_requires"], extras["cpu"], extras["test"]])
for line in declared.splitlines():
    found = re.match(r"\s*([\w.-]+)\s*(?:>=|==)\s*([\w.]+)([^;]*)(;.*)?$", line)
    if found:
        name, version, _, marker = found.groups()
        print(f"{name} =={version} {marker or ''}".strip())
PYTHON
# With flags alone, since other settings of pip may hold versions back.
if ! cmp -s .venv/lowest.txt .venv-lowest/lowest.txt; then
  rm -rf .venv-lowest
  .venv/bin/python -m venv .venv-lowest
  .venv-lowest/bin/python -m pip install --quiet --constraint .venv/lowest.txt ".[cpu,test]"
  cp .venv/lowest.txt .venv-lowest/lowest.txt
fi
.venv-lowest/bin/python -m pip list --format=freeze | grep -i -f <(cut -d' ' -f1 .venv/lowest.txt) || true
if [ $# = 0 ]; then set -- tests --ignore=tests/scripts; fi
exec .venv-lowest/bin/python -m pytest -n 2 --dist worksteal "$@"
