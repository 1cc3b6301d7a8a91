#!/usr/bin/env bash
# Submits a training run as a TPU job, follows it, and deletes the TPU at the end, however it ends:
#
#   scripts/tpu/submit_tpu.sh --name=wrn --accelerator_type=v5litepod-8 --zone=us-west4-a \
#     --project=my-project --bucket=gs://my-bucket/runs --flagfile=flags/X.flags [--flag=value ...]
#
#   --spot               cheaper; the TPU may be preempted at any moment, and the job then resumes
#   --attempts=5         maximum number of starts; a run that is preempted, stopped (75) or lost (76)
#                        is started again
#   --fetch              copy the results from the bucket to runs/NAME at the end
#   --runtime_version=V  image of the TPU, if the default one is not available
#   --network=N          network of the TPU (--subnetwork=N: its part); a slice wants one of its own
#   --dry_run            print the commands of a job without failures, and run none
#
# On a slice of several hosts (v4, v5litepod, v5p), each host decodes its share of the examples, and the
# first one also runs the trainer. If a host is lost, all start again from the bucket.
#
# All other flags are the trainer's. The run is in BUCKET/NAME (docs/buckets.md): the trainer copies it
# there after each checkpoint. The same command resumes a run, and after kill -9 it uses the TPU that
# still exists. The log is runs/NAME.log. The exit status is the trainer's, or 1 if gcloud fails.
set -euo pipefail
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/../.."

poll=${CRESCENDO_POLL_SECONDS:-30}
python=${CRESCENDO_PYTHON:-.venv/bin/python}
name='' accelerator_type='' zone='' project='' bucket='' runtime_version='' spot='' network=()
attempts=5 fetch=false dry_run=false several=false flags=()

exec 3>&1 4>&2 # In a trap, descriptors 1 and 2 are those of the interrupted command.
mute=false
say() { $mute || printf 'submit_tpu: %s\n' "$*" >&4; }
refuse() { mute=false; say "$*"; exit 2; }
die() { mute=false; say "$*"; exit 1; }
# Prints the comment at the head of this file.
usage() { sed -n '2,/^set -/{/^#/!d; s/^# \{0,1\}//; p;}' "scripts/tpu/${0##*/}"; }

for argument in "$@"; do
  value=${argument#*=}
  case $argument in
    --help | -h | help) usage; exit 0 ;;
    --name=*) name=$value ;;
    --accelerator_type=*) accelerator_type=$value ;;
    --zone=*) zone=$value ;;
    --project=*) project=$value ;;
    --bucket=*) bucket=${value%/} ;;
    --runtime_version=*) runtime_version=$value ;;
    --network=* | --subnetwork=*) network+=("$argument") ;;
    --attempts=*) attempts=$value ;;
    --spot) spot=--spot ;;
    --fetch) fetch=true ;;
    --dry_run) dry_run=true ;;
    --model_dir* | --cache_dir* | --local_dir* | --strategy* | --tpu* | --virtual_devices*)
      refuse "${argument%%=*} is set for a TPU job: leave it out." ;;
    --format* | --plot* | --plan_* | --workers* | --min_efficiency* | --replicas* | --hosts* | --examples_per_second* | --parameters* | --link_*)
      refuse "${argument%%=*} is a flag of plan or of clusters, which a TPU job does not take: leave it out." ;;
    --dataset=image_folder:gs://*) flags+=("$argument") ;;
    --dataset=image_folder:* | --dataset=image_csv:*)
      refuse "$argument is not for a TPU job: name a TFDS set, or an image folder in a bucket (gs://...)." ;;
    --data_dir=gs://* | --init_from=imagenet | --class_weights=balanced) flags+=("$argument") ;;
    --data_dir=?*)
      refuse "$argument is a folder of this machine, which does not reach the TPU: name a folder in a bucket (gs://...)." ;;
    --model=*:*)
      refuse "$argument is a module of this machine, which does not reach the TPU: name one of Crescendo's models." ;;
    --init_from=?* | --fork_from=?* | --class_weights=?*)
      refuse "$argument is a file or folder of this machine, which does not reach the TPU: leave it out." ;;
    --flagfile=flags/*) flags+=("$argument") ;;
    --flagfile=*) # This is a recipe's name, or a file that exists only on this machine.
      [[ -f flags/${value%.flags}.flags ]] ||
        refuse "$argument does not reach the TPU: put the file into flags/."
      flags+=("$argument") ;;
    *) flags+=("$argument") ;;
  esac
done

# Sets the number of TensorFlow's replicas, the image, and whether it is a slice of several hosts.
# Sources: Cloud TPU's pages on v2 to v6e for cores, chips and hosts, and its page on TPU software
# versions for images. The two cores of a v4 or v5p chip are one device, those of a v2 or v3 chip are two
# (pytorch/xla issue 5258; JAX counts likewise).
choose_type() {
  local cores=${accelerator_type#*-}
  case $accelerator_type in
    v2-8 | v3-8) replicas=8 image=tpu-ubuntu2204-base ;;
    v4-8) replicas=4 image=tpu-ubuntu2204-base ;;
    v5p-8) replicas=4 image=v2-alpha-tpuv5 ;;
    v5litepod-[148]) replicas=$cores image=v2-alpha-tpuv5-lite ;;
    v6e-[148]) replicas=$cores image=v2-alpha-tpuv6e ;;
    v5litepod-16 | v5litepod-32 | v5litepod-64 | v5litepod-128 | v5litepod-256)
      replicas=$cores image=v2-alpha-tpuv5-lite several=true ;;
    v4-[1-9]*[0-9] | v5p-[1-9]*[0-9])
      # A host has four chips, of two cores each.
      [[ $cores =~ ^[0-9]{2,5}$ ]] && ((cores % 8 == 0)) ||
        refuse "--accelerator_type=$accelerator_type is not a known type: use a multiple of 8 cores."
      replicas=$((cores / 2)) several=true
      case $accelerator_type in v4-*) image=tpu-ubuntu2204-base ;; *) image=v2-alpha-tpuv5 ;; esac ;;
    v[236]-[1-9]*[0-9] | v6e-[1-9]*[0-9])
      refuse "--accelerator_type=$accelerator_type has several hosts, which only v4, v5litepod and v5p" \
        "may have here: use v5litepod-16, v4-16 or v5p-16, or one host of this generation." ;;
    *) refuse "--accelerator_type=$accelerator_type is not a known type: use v2-8, v3-8, v4-8, v5p-8," \
      "v5litepod or v6e with -1, -4 or -8, or a slice of several hosts, such as v5litepod-16." ;;
  esac
}

check_job() {
  local option
  for option in name accelerator_type zone project bucket; do
    [[ -n ${!option} ]] || refuse "--$option is missing: give --$option=..."
  done
  [[ $name =~ ^[a-z]([-a-z0-9]{0,60}[a-z0-9])?$ ]] ||
    refuse "--name=$name: use a small letter, then small letters, digits and hyphens; 62 characters at most."
  [[ $bucket =~ ^gs://[^/]+ ]] || refuse "--bucket=$bucket: write gs://BUCKET or gs://BUCKET/FOLDER."
  [[ $attempts =~ ^[1-9][0-9]*$ ]] || refuse "--attempts=$attempts: use a number of 1 or above."
  choose_type
  if [[ -z ${CRESCENDO_PYTHON:-} ]]; then
    # shellcheck source=scripts/setup.sh
    . scripts/setup.sh
  fi
  say "the job, on $replicas replicas:"
  "$python" -m trainer plan ${flags[@]+"${flags[@]}"} \
    --strategy=auto --virtual_devices="$replicas" || exit 2
}

check_cloud() {
  command -v gcloud >/dev/null || refuse "gcloud is not on PATH: install the Google Cloud CLI."
  [[ -n $(gcloud auth list --filter=status:ACTIVE --format='value(account)' 2>/dev/null) ]] ||
    refuse "gcloud has no account: run gcloud auth login."
  local root=${bucket#gs://}
  gcloud storage ls "gs://${root%%/*}" >/dev/null ||
    refuse "--bucket=$bucket cannot be read: gcloud's reason is above."
}

install() {
  say "installing on every worker"
  tar -czf "$scratch/crescendo.tar.gz" --exclude=__pycache__ \
    LICENSE README.md pyproject.toml setup.cfg flags scripts trainer &&
    cloud compute tpus tpu-vm scp "$scratch/crescendo.tar.gz" "$name:" "${where[@]}" --worker=all &&
    remote all "mkdir -p crescendo && tar -xzf crescendo.tar.gz -C crescendo && $worker install" &&
    installed=$created
}

# Sets `answer` to the run's status on the first worker, or to preempted.
ask() {
  local silent
  for ((silent = 0; silent < 20; silent++)); do
    if remote 0 "test ! -e crescendo && echo new || $worker status" \
      >"$scratch/answer" 2>"$scratch/error"; then
      answer=$(tail -n 1 "$scratch/answer") # A login message may precede it.
      if $dry_run; then answer=$($training && echo exit 0 saved || echo new); fi
      return
    fi
    cp "$scratch/error" "$scratch/silence"
    look
    if [[ $state != ACTIVE && $state != unknown ]]; then
      answer=preempted
      return
    fi
    pause
  done
  die "$name does not answer: $(tail -n 3 "$scratch/silence")"
}

# Shows the log until the run has ended, and reconnects if the connection is lost.
follow() {
  while :; do
    through=logged remote 0 "$worker follow $(($(wc -c <"$log") - begun + 1))" || true
    ask
    [[ $answer == running ]] || return 0
    say "the connection was lost; the run goes on"
    pause
  done
}

# Starts the run once and follows it; sets `answer` to how it ended.
attempt() {
  answer=preempted
  provide || return 0
  ask
  if [[ $answer == preempted ]]; then return; fi
  begun=$(wc -c <"$log")
  if [[ $answer != running ]]; then
    if [[ $installed != "$created" ]] && ! install; then
      look
      [[ $state != ACTIVE && $state != unknown ]] || die "the package could not be installed: see above."
      answer=preempted
      return
    fi
    if $several && ! remote all "$worker host"; then
      say "the hosts could not be started: see above"
      answer=lost
      pause
      return
    fi
    training=true
    remote 0 "$worker start $(quoted "$bucket/$name" ${flags[@]+"${flags[@]}"})" || true
  fi
  training=true
  follow
  training=false
  if $several && [[ $answer == "exit 76 "* ]]; then
    through=logged remote all "$worker complain" || true
  fi
}

# shellcheck disable=SC2329 # A trap calls this function, and the next two.
leave() {
  trap - EXIT INT TERM HUP
  left_behind
  [[ -z $child ]] || kill -- "-$child" 2>/dev/null || true
  exit 1
}

# shellcheck disable=SC2329
interrupted() {
  trap leave INT TERM HUP
  say "interrupted: deleting $name; a second signal leaves it undeleted"
  if [[ -n $child ]]; then
    # A request that was sent may still succeed, so this waits for its answer.
    $creating || kill -- "-$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  exit "$1"
}

# shellcheck disable=SC2329
finish() {
  local status=$?
  set +e
  exec >&3 2>&4
  trap - EXIT
  trap leave INT TERM HUP
  if $ours; then
    if $training; then
      say "stopping the run, with a checkpoint that is copied to $bucket/$name"
      answer=''
      if remote 0 "$worker stop" >"$scratch/answer"; then answer=$(tail -n 1 "$scratch/answer")
      else say "the run could not be stopped: $bucket/$name has its last copy"; fi
    fi
    if [[ $answer == *unsaved ]]; then
      left_behind "its results are only on its disk: they could not be copied to $bucket"
      status=1
    elif ! remove; then
      left_behind
      status=1
    fi
  fi
  rm -rf "$scratch"
  exit "$status"
}

check_job
if $dry_run; then
  say "these commands would be run for a job without failures; none is run now:"
  mute=true # Messages about the commands' answers would be invented.
else
  check_cloud
fi
worker='bash crescendo/scripts/tpu/tpu_worker.sh'
answer='' begun=0 installed='' training=false
scratch=$(mktemp -d)
log=$scratch/log
if ! $dry_run; then
  mkdir -p runs
  log=runs/$name.log
fi
touch "$log"
. scripts/tpu/queued_resource.sh
trap finish EXIT
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP

look
case $state in
  gone) ;;
  unknown) die "gcloud does not report whether $name exists: $(cat "$scratch/error")" ;;
  *)
    [[ $made_by == crescendo && $type == "$accelerator_type" ]] ||
      refuse "$name exists already: $state, a $type, made by ${made_by:-something else}. Choose another --name." ;;
esac

for ((tried = 1; tried <= attempts; tried++)); do
  say "start $tried of at most $attempts"
  attempt
  say "the run's status: $answer"
  case $answer in
    "exit 75 "* | "exit 76 saved" | lost | new | preempted) status=75 ;;
    *) read -r _ status _ <<<"$answer"; break ;;
  esac
done
if $fetch && [[ $answer == *" saved" ]]; then
  copy=("$python" -m trainer fetch --model_dir="$bucket/$name" --local_dir="runs/$name")
  if $dry_run; then quoted "${copy[@]}" && echo
  else "${copy[@]}" || say "not fetched: see $bucket/$name"; fi
fi
say "results: $bucket/$name; log: $log"
exit "$status"
