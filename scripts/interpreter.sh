# Sourced by scripts that need the package: sets `python`, the active virtual environment's or that of .venv,
# which it makes on first use; changes to the checkout's root.
# shellcheck shell=bash
if [ -n "${VIRTUAL_ENV:-}" ]; then
  python=$VIRTUAL_ENV/bin/python
  CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
else
  . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
  python=.venv/bin/python
fi
