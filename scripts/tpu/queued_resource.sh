# Sourced by submit_tpu.sh: creates a queued resource of Cloud TPU, runs commands on its machines, and
# deletes it. `ours` is true as soon as a resource may exist that has to be deleted.
# shellcheck shell=bash disable=SC2034,SC2154 # Both files use each other's variables.

node='tpu.nodeSpec[0].node'
where=(--zone="$zone" --project="$project" --quiet)
state='' type='' made_by='' child='' through='' pretended=gone
ours=false creating=false created=0

# Prints the words quoted for a shell.
quoted() {
  local word
  for word; do
    case $word in
      *[!-A-Za-z0-9_./:=,@+]* | '') printf "'%s' " "${word//\'/\'\\\'\'}" ;;
      *) printf '%s ' "$word" ;;
    esac
  done
}

# bash handles a signal at once only while it waits for a job. A job in its own process group (set -m)
# receives signals only from this script.
set -m
run() {
  local status=0
  "$@" </dev/null &
  child=$!
  wait "$child" || status=$?
  child=''
  return "$status"
}

logged() { "$@" | tee -a "$log"; }

cloud() {
  if $dry_run; then printf '%s\n' "$(quoted gcloud "$@")" >&3; else run ${through:+"$through"} gcloud "$@"; fi
}

pause() { $dry_run || run sleep "$poll"; }

# Sets `state` to the resource's state in the TPU API, gone or unknown.
look() {
  type='' made_by=''
  if cloud compute tpus queued-resources describe "$name" "${where[@]}" \
    --format="value(state.state,${node}.acceleratorType,${node}.labels.made_by)" \
    >"$scratch/answer" 2>"$scratch/error"; then
    read -r state type made_by <"$scratch/answer" || true
  elif grep -qi 'not[_ ]found' "$scratch/error"; then
    state=gone
  else
    state=unknown
  fi
  if $dry_run; then state=$pretended; fi
}

create() {
  local made=true
  say "requesting $name: $accelerator_type in $zone${spot:+, spot}"
  ours=true creating=true
  cloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
    --accelerator-type="$accelerator_type" --runtime-version="${runtime_version:-$image}" \
    ${network[@]+"${network[@]}"} ${spot:+"$spot"} --labels=made_by=crescendo || made=false
  creating=false
  $made || die "it was refused: gcloud's reason is above."
  created=$((created + 1)) pretended=ACTIVE
}

# Deletes the resource and waits until it is gone; while it is provisioned it cannot be deleted.
remove() {
  local try
  for ((try = 1; try <= 20; try++)); do
    cloud compute tpus queued-resources delete "$name" "${where[@]}" --force || true
    pretended=gone
    look
    if [[ $state == gone ]]; then
      say "nothing is left of $name"
      return 0
    fi
    say "$name is not deleted yet ($state), try $try of 20"
    pause
  done
  return 1
}

left_behind() {
  $ours || return 0
  say "LEFT BEHIND, and charged until it is deleted: $name in $zone of $project${1:+, because $1}." \
    "Delete it by"$'\n'"$(quoted gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force)"
}

# Provides a resource that is ACTIVE; returns 1 if it was preempted before.
provide() {
  local unknown=0 before=''
  look
  case $state in
    SUSPENDING | SUSPENDED | FAILED | DELETING)
      remove || die "$name is $state and cannot be deleted: delete it, and start again." ;;
  esac
  if [[ $state == gone ]]; then create; else say "$name exists already: using it"; fi
  ours=true
  while look; do
    [[ $state == "$before" ]] || say "$name is $state"
    before=$state
    case $state in
      ACTIVE) return 0 ;;
      SUSPENDING | SUSPENDED) return 1 ;;
      FAILED)
        cloud compute tpus queued-resources describe "$name" "${where[@]}" \
          --format='value(state.failedData.error.message)' >&4 || true
        die "$name could not be created: the reason is above." ;;
      gone | DELETING) die "$name was deleted by somebody else." ;;
      unknown)
        ((++unknown < 20)) || die "gcloud does not report the state of $name: $(tail -n 3 "$scratch/error")" ;;
    esac
    pause
  done
}

remote() {
  cloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" \
    --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --command="$2"
}
