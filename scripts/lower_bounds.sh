#!/usr/bin/env bash
# Runs the tests with the lowest version of every dependency that setup.cfg allows, all together, in the
# environment .venv-lowest:
#   scripts/lower_bounds.sh [pytest's arguments]
# It takes about 20 minutes, and scripts/test.sh does not run it. If a bound fails here, raise it in setup.cfg.
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
# pip gets its settings only as arguments, because other settings may hold versions back.
if ! cmp -s .venv/lowest.txt .venv-lowest/lowest.txt; then
  rm -rf .venv-lowest
  .venv/bin/python -m venv .venv-lowest
  .venv-lowest/bin/python -m pip install --quiet --constraint .venv/lowest.txt ".[cpu,test]"
  cp .venv/lowest.txt .venv-lowest/lowest.txt
fi
.venv-lowest/bin/python -m pip list --format=freeze | grep -i -f <(cut -d' ' -f1 .venv/lowest.txt) || true
if [ $# = 0 ]; then set -- tests --ignore=tests/scripts; fi
exec .venv-lowest/bin/python -m pytest -n 2 --dist worksteal "$@"
