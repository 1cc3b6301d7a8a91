# Sourced by the other scripts: makes a virtual environment in the checkout, installs the package in it,
# and prepares the main job's data. It makes the environment once, and again only if setup.cfg has changed.
# shellcheck shell=bash

CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.."

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo -n "$@"
  else return 1; fi
}

# Installs Debian packages if this is a Debian and root is allowed; quietly, with a time limit in case
# there is no network.
debian_install() {
  command -v apt-get >/dev/null || return 1
  export DEBIAN_FRONTEND=noninteractive
  as_root timeout 60 apt-get -qq update >/dev/null 2>&1 || true
  as_root timeout 180 apt-get -qq install -y --no-install-recommends "$@" >/dev/null 2>&1
}

find_python() {
  local candidate
  # TensorFlow has wheels for 3.11 to 3.13.
  for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
    then echo "$candidate"; return; fi
  done
  return 1
}

install_package() {
  local python extra=cpu
  if ! python=$(find_python); then
    echo "No Python 3.11 to 3.13 was found${PYTHON:+ as $PYTHON}: install one, or set PYTHON=/path/to/python3." >&2
    return 1
  fi
  command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1 && extra=gpu
  echo "Setting up .venv with the extras $extra and test (once, a minute or two) ..." >&2
  rm -rf .venv
  if ! "$python" -m venv .venv >/dev/null 2>&1; then
    rm -rf .venv
    debian_install python3-venv || true
    if ! "$python" -m venv .venv; then
      rm -rf .venv
      echo "$python cannot make a virtual environment: install its venv module (Debian: python3-venv)." >&2
      return 1
    fi
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extra,test]" || return 1
  cp setup.cfg .venv/installed_setup.cfg
}

prepare_data() {
  local folder=${TFDS_DATA_DIR:-${HOME:-/root}/tensorflow_datasets}
  if [ -e .venv/data_tried ] || [ -d /usr/share/datasets/fashion-mnist ] ||
    ls "$folder"/fashion_mnist/*/dataset_info.json >/dev/null 2>&1; then return; fi
  # Without this package, training falls back on TFDS's download, and says what to do if that fails.
  debian_install dataset-fashion-mnist || true
  touch .venv/data_tried
}

set -e
if ! cmp -s setup.cfg .venv/installed_setup.cfg; then
  # If two first uses run at once, the second waits, so that it does not delete the first one's .venv.
  # The lock ends with the descriptor, even if this shell is killed.
  (
    if command -v flock >/dev/null; then flock 9; fi
    if ! cmp -s setup.cfg .venv/installed_setup.cfg; then install_package; fi
  ) 9<>setup.cfg
fi
prepare_data
