#!/usr/bin/env bash
# Trains with N workers on this machine, which share out its cores:
#   scripts/launch_local.sh 2 --flagfile=flags/fashion_mnist_grow.flags --model_dir=runs/two
# Each line of output begins with its worker's number. Once all have left, and one because it was
# stopped (75), killed, or had lost another one (76), all start again, up to RESTARTS times (3). SIGTERM
# and SIGINT go to the workers, once each, and end it. Uses the active virtual environment, or .venv.
workers=$1
case $workers in
  '' | 0 | *[!0-9]*) echo "usage: scripts/launch_local.sh N --flag=value ..." >&2; exit 2 ;;
esac
shift
if [ -n "${VIRTUAL_ENV:-}" ]; then
  python=$VIRTUAL_ENV/bin/python
  CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
else
  . "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
  set +e
  python=.venv/bin/python
fi

# A line a worker: its cores as taskset takes them, and its TF_CONFIG.
plan() {
  "$python" - "$workers" <<'END'
import json, os, socket, sys
n = int(sys.argv[1])
sockets = [socket.create_server(("", 0)) for _ in range(n)]
addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
cores = sorted(os.sched_getaffinity(0))
for i in range(n):
    own = cores[i * len(cores) // n : (i + 1) * len(cores) // n] or [cores[i % len(cores)]]
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
    print(",".join(map(str, own)), json.dumps(task))
END
}

stopped=
forward() {
  stopped=yes
  kill -TERM "${pids[@]}" 2>/dev/null
}
trap forward TERM INT
set -m # Process groups of their own: a Ctrl-C would reach the workers twice.

for ((start = 0; start <= ${RESTARTS:-3}; start++)); do
  [ "$start" = 0 ] || echo "launch_local: start $((start + 1))" >&2
  mapfile -t tasks < <(plan)
  pids=()
  for i in "${!tasks[@]}"; do
    TF_CONFIG=${tasks[i]#* } taskset -c "${tasks[i]%% *}" \
      "$python" -m trainer train --strategy=multi_worker "$@" > >(exec sed -u "s/^/[$i] /") 2>&1 &
    pids+=($!)
  done
  status=0
  for pid in "${pids[@]}"; do
    # A trap ends the wait, and not the worker.
    while wait "$pid"; ended=$?; [ "$ended" -gt 128 ] && kill -0 "$pid" 2>/dev/null; do :; done
    # What no restart mends counts first.
    if [ "$ended" != 0 ] && { [ "$status" = 0 ] || [ "$ended" -lt 75 ]; }; then status=$ended; fi
  done
  if [ "$status" -lt 75 ] || [ -n "$stopped" ]; then break; fi
done
exit "$status"
