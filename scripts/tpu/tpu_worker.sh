#!/usr/bin/env bash
# scripts/tpu/submit_tpu.sh runs these commands on the TPU's machine, in the checkout that it copied there:
#
#   install                 makes a virtual environment with the package and its extra tpu
#   start BUCKET FLAG...    starts training, which goes on if the connection ends
#   follow BYTE             shows the log from that byte on, until the run has ended
#   status                  prints new, running, lost, or exit STATUS saved|unsaved
#   stop                    ends the run with a checkpoint, and waits for its copy
#
# A run directory needs links, locks and renames, so job/ is on this machine's disk. It is copied to BUCKET
# every few minutes and at the end; a machine without it starts from BUCKET's copy.
set -euo pipefail
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/../.."

copy_seconds=${CRESCENDO_COPY_SECONDS:-300}
retry_seconds=${CRESCENDO_RETRY_SECONDS:-30}
stop_seconds=${CRESCENDO_STOP_SECONDS:-300}

# Copies job/ to the bucket, without unfinished checkpoints, which the next copy holds, and without the
# lock and the workers' secret. flock lets one copy run at a time; the last one waits for the one before.
copy_out() {
  flock copying gcloud storage rsync --recursive --delete-unmatched-destination-objects \
    --exclude='(^|.*/)(lock|secret|incomplete/.*|[^/]*\.tmp)$' job "$bucket" --quiet
}

copy_in() {
  rm -rf job.tmp
  mkdir job.tmp && gcloud storage rsync --recursive "$bucket" job.tmp --quiet && mv job.tmp job
}

alive() { [[ -e $1 ]] && kill -0 "$(cat "$1")" 2>/dev/null; }

train() {
  local trainer copier status=0 saved=unsaved try
  # These tell TensorFlow to use the TPU through libtpu's PJRT interface.
  NEXT_PLUGGABLE_DEVICE_USE_C_API=true
  TF_PLUGGABLE_DEVICE_LIBRARY_PATH=$(.venv/bin/python -c 'import libtpu; print(libtpu.get_library_path())')
  export NEXT_PLUGGABLE_DEVICE_USE_C_API TF_PLUGGABLE_DEVICE_LIBRARY_PATH
  .venv/bin/python -m trainer train "$@" --strategy=tpu --tpu=local --model_dir=job/run &
  trainer=$!
  echo "$trainer" >trainer.pid
  while sleep "$copy_seconds"; do
    copy_out || echo "tpu_worker: not copied to $bucket; the next copy is in $copy_seconds s"
  done &
  copier=$!
  wait "$trainer" || status=$?
  kill "$copier"
  for try in 1 2 3 4 5; do
    if copy_out; then
      saved=saved
      break
    fi
    echo "tpu_worker: not copied to $bucket, try $try of 5"
    sleep "$retry_seconds"
  done
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
    python3 -m uv pip install --quiet --python .venv/bin/python '.[tpu]'
    ;;
  start)
    shift
    rm -f ended trainer.pid
    mkdir -p logs
    date -u +logs/%Y%m%d-%H%M%S.txt >log_name
    # All descriptors lead to the log, because ssh waits until nothing holds the connection's.
    nohup setsid bash scripts/tpu/tpu_worker.sh run "$@" >"$(cat log_name)" 2>&1 </dev/null &
    echo $! >worker.pid
    ;;
  run)
    bucket=$2
    shift 2
    # A first object proves that the bucket can be written, and that copy_in has something to copy.
    if ! { date -u; hostname; } | gcloud storage cp - "$bucket/started.txt" --quiet; then
      echo "tpu_worker: $bucket cannot be written from here: give the TPU's service account the role" \
        "roles/storage.objectAdmin on it."
      end 2 saved
    elif [[ ! -d job ]] && ! copy_in; then
      echo "tpu_worker: $bucket cannot be copied here, and the run was not started."
      end 74 saved
    else
      mkdir -p job/logs
      ln -f "$(cat log_name)" "job/$(cat log_name)"
      train "$@"
    fi
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
    if alive trainer.pid; then kill -TERM "$(cat trainer.pid)"; else kill -TERM "$(cat worker.pid)"; fi
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
