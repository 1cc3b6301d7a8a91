#!/usr/bin/env bash
# Trains with N workers on this machine, with an equal share of its cores each:
#   scripts/launch_local.sh 2 --flagfile=flags/fashion_mnist_grow.flags --model_dir=runs/two
# With A:B in place of N, the number follows the batch, from A to B workers (--workers=A:B):
#   scripts/launch_local.sh 1:4 --flagfile=flags/fashion_mnist_grow.flags --model_dir=runs/elastic
# At a batch that is worth another number, all workers leave with a checkpoint (77), and that number
# starts. With N and --workers=A:B among the flags, at most N start.
# Each line of output begins with its worker's number. If a worker was stopped (75) or killed, or lost
# another worker (76), all workers start again after all have ended, up to RESTARTS times (3). Workers
# still running PATIENCE seconds (90) after the first failure are killed. SIGTERM and SIGINT are passed
# to the workers and end the job. If this script is killed, the workers stop as if they got SIGTERM.
# Uses the active virtual environment, or .venv.
set -eu
case ${1:-} in
  -h | --help | help) # Prints the comment at the head of this file.
    sed -n '2,/^set -/{/^#/!d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
. "$(dirname "${BASH_SOURCE[0]}")/interpreter.sh"
exec "$python" scripts/launch_local.py "$@"
