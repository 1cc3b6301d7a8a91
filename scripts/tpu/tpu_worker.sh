#!/usr/bin/env bash
# scripts/tpu/submit_tpu.sh runs these commands on the TPU's machine, in the checkout that it copied there:
#
#   install                 makes a virtual environment with the package and its extra tpu
#   host                    on a slice of several hosts, on each: starts the host's process anew, which
#                           trainer/training/host.py describes, and waits until it serves
#   start BUCKET FLAG...    starts training, which goes on if the connection ends
#   complain                on each host of a slice: prints the last lines of the host's process
#   follow BYTE             shows the log from that byte on, until the run has ended
#   status                  prints new, running, lost, or exit STATUS saved|unsaved
#   stop                    ends the run with a checkpoint, and waits for its copy
#
# The trainer keeps the run below job/, on this machine's disk, and copies it to BUCKET. A machine
# without it starts from BUCKET's copy.
set -euo pipefail
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/../.."

stop_seconds=${CRESCENDO_STOP_SECONDS:-400}

port=8470 # Port of TensorFlow's server on each host of a slice.

# Prints when the process $1 started, in clock ticks since the machine's start; nothing if it has ended.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# Writes the process $2 to the file $1. After a reboot, another process may have its number.
note() { echo "$2 $(start_time "$2")" >"$1"; }

# Returns whether the process in the file $1 runs.
alive() {
  local process time
  [[ -e $1 ]] && read -r process time <"$1" && [[ -n $time && $(start_time "$process") == "$time" ]]
}

# Sends the signal $1 to the process in the file $2.
signal() { kill "-$1" "$(cut -d' ' -f1 "$2")"; }

# Adds the log to the run's folder, from which the trainer copies it, once this is a run.
add_log() {
  local run
  until run=$(compgen -G 'job/runs/*/flags.txt'); do sleep 0.1; done
  mkdir -p "${run%/*}/logs"
  ln -f "$(cat log_name)" "${run%/*}/$(cat log_name)"
}

# Tells TensorFlow to use the TPU through libtpu's PJRT interface.
use_tpu() {
  NEXT_PLUGGABLE_DEVICE_USE_C_API=true
  TF_PLUGGABLE_DEVICE_LIBRARY_PATH=$(.venv/bin/python -c 'import libtpu; print(libtpu.get_library_path())')
  export NEXT_PLUGGABLE_DEVICE_USE_C_API TF_PLUGGABLE_DEVICE_LIBRARY_PATH
}

# Prints a value that Google's metadata server has about this machine.
metadata() {
  curl -sSf -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

# Starts the host's process. libtpu reads the variables; their values are those that the script
# start_grpc_tpu_worker of tensorflow-tpu 2.20 sets. libtpu itself finds the topology of a v4 or v5.
serve() {
  local endpoints number
  endpoints=$(metadata worker-network-endpoints) # NAME:PORT:ADDRESS, a comma, and so on.
  number=$(metadata agent-worker-number)
  tr ',' '\n' <<<"$endpoints" | cut -d: -f3 >hosts
  CLOUD_TPU_TASK_ID=$number
  TPU_HOSTNAME_OVERRIDE=$(sed -n "$((number + 1))p" hosts)
  TPU_MESH_CONTROLLER_ADDRESS=$(head -n 1 hosts):8476
  TPU_MESH_CONTROLLER_PORT=8476
  export CLOUD_TPU_TASK_ID TPU_HOSTNAME_OVERRIDE TPU_MESH_CONTROLLER_ADDRESS TPU_MESH_CONTROLLER_PORT
  use_tpu
  # The wait below must not read the log of an earlier process.
  if [[ -e host.log ]]; then mv host.log host.previous.log; fi
  nohup setsid .venv/bin/python -m scripts.tpu.tpu_host "$port" >host.log 2>&1 </dev/null &
  note host.pid $!
  until grep -q 'this host serves' host.log; do
    alive host.pid || { tail -n 5 host.log >&2; exit 1; }
    sleep 0.2
  done
}

train() {
  local trainer linker status=0 saved=saved tpu=local
  if [[ -e hosts ]]; then
    tpu=$(sed "s/\$/:$port/" hosts | paste -sd, -)
    export TPU_LOAD_LIBRARY=0 # The host's process uses the TPU.
  else
    use_tpu
  fi
  .venv/bin/python -m trainer train "$@" --strategy=tpu --tpu="$tpu" --model_dir="$bucket" --cache_dir=job &
  trainer=$!
  note trainer.pid "$trainer"
  add_log &
  linker=$!
  wait "$trainer" || status=$?
  kill "$linker" 2>/dev/null || true
  # In these cases, the last state is on this disk alone.
  if [[ $status == 74 ]] || tail -n 5 "$(cat log_name)" | grep -q 'lacks the newest files of the run'; then
    saved=unsaved
  fi
  end "$status" "$saved"
}

# Shows the log from byte `from` on.
show() {
  local size
  size=$(wc -c <"$(cat log_name)")
  tail -c "+$from" "$(cat log_name)" | head -c "$((size - from + 1))" || true
  from=$((size + 1))
}

# Writes the run's end to a file that appears whole, because `status` may read it at any time.
end() {
  echo "exit $1 $2" >ended.tmp
  mv ended.tmp ended
}

case $1 in
  install)
    # The TPU's images have Python 3.10; uv installs a newer one.
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --clear --python '>=3.11,<3.14' .venv
    python3 -m uv pip install --quiet --python .venv/bin/python '.[tpu,cloud]'
    ;;
  host)
    if alive host.pid; then signal KILL host.pid; fi
    while alive host.pid; do sleep 0.1; done # Until then, it uses the TPU and its ports.
    serve
    ;;
  complain)
    tail -n 5 host.log | sed "s/^/host $(metadata agent-worker-number): /"
    ;;
  start)
    shift
    rm -f ended trainer.pid
    mkdir -p logs
    date -u +logs/%Y%m%d-%H%M%S.txt >log_name
    # All descriptors lead to the log, because ssh waits until nothing holds the connection's.
    nohup setsid bash scripts/tpu/tpu_worker.sh run "$@" >"$(cat log_name)" 2>&1 </dev/null &
    note worker.pid $!
    ;;
  run)
    bucket=$2
    shift 2
    train "$@"
    ;;
  follow)
    from=$2
    until [[ -e ended ]] || ! alive worker.pid; do
      show
      sleep 0.5
    done
    show
    ;;
  status)
    if [[ -e ended ]]; then cat ended
    elif alive worker.pid; then echo running
    elif [[ -e worker.pid ]]; then echo lost
    else echo new; fi
    ;;
  stop)
    if alive trainer.pid; then signal TERM trainer.pid; else signal TERM worker.pid; fi
    for ((second = 0; second < stop_seconds; second++)); do
      if ! alive worker.pid; then
        cat ended
        exit
      fi
      sleep 1
    done
    exit 1
    ;;
esac
