#!/usr/bin/env bash
# Trains with N workers on this machine, which share out its cores:
#   scripts/launch_local.sh 2 --flagfile=flags/fashion_mnist_grow.flags --model_dir=runs/two
# Each line of output begins with its worker's number. Once all have left, and one because it was
# stopped (75), killed, or had lost another one (76), all start again, up to RESTARTS times (3); those
# that are left PATIENCE seconds (90) after the first one has failed are killed. SIGTERM and SIGINT go
# to the workers, and end it; where it is killed, they stop as by SIGTERM. Uses the active virtual
# environment, or .venv.
set -eu
case ${1:-} in
  -h | --help | help) # The comment at the head of this file.
    sed -n '2,/^set -/{/^#/!d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
if [ -n "${VIRTUAL_ENV:-}" ]; then
  python=$VIRTUAL_ENV/bin/python
  CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
else
  . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
  python=.venv/bin/python
fi
exec "$python" scripts/launch_local.py "$@"
