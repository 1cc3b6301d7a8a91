# Sourced by the tools that compile for other devices: defines `compiler_environment`, and sets `python`.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../interpreter.sh"

# Makes a compiler's environment in the folder $1 on first use; the other arguments go to pip. The packages
# have pinned versions, because scripts/fit/compile.py calls private parts of JAX and parses XLA's text.
compiler_environment() {
  local folder=$1
  shift
  [ "$(cat "$folder/installed" 2>/dev/null)" = "$*" ] && return
  echo "Setting up $folder with $* (once, a minute or two) ..." >&2
  rm -rf "$folder"
  "$python" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  echo "$*" > "$folder/installed"
}
