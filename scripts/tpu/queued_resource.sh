# Sourced by submit_tpu.sh: a queued resource of Cloud TPU and the machines in it, from the request until it
# is gone. `ours` is true from where on something may be there that has to be deleted.
# shellcheck shell=bash disable=SC2034,SC2154 # The caller's names, and names for it.

node='tpu.nodeSpec[0].node'
where=(--zone="$zone" --project="$project" --quiet)
state='' type='' made_by='' child='' through='' pretended=gone
ours=false creating=false created=0

# As a shell takes it.
quoted() {
  local word
  for word; do
    case $word in
      *[!-A-Za-z0-9_./:=,@+]* | '') printf "'%s' " "${word//\'/\'\\\'\'}" ;;
      *) printf '%s ' "$word" ;;
    esac
  done
}

# bash acts on a signal at once only while it waits for a job; and a job in a process group of its
# own (set -m) gets no signal but this script's.
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

# What it is now: a state of the TPU API, gone, or unknown.
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
  say "asking for $name: $accelerator_type in $zone${spot:+, spot}"
  ours=true creating=true
  cloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
    --accelerator-type="$accelerator_type" --runtime-version="${runtime_version:-$image}" \
    ${spot:+"$spot"} --labels=made_by=crescendo || made=false
  creating=false
  $made || die "it was refused: gcloud's reason is above."
  created=$((created + 1)) pretended=ACTIVE
}

# Deletes it and waits until it is gone; what is just being provisioned cannot be deleted yet.
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
  say "LEFT BEHIND, and charged until it is deleted: $name in $zone of $project${1:+, since $1}." \
    "Delete it by"$'\n'"$(quoted gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force)"
}

# One that is ACTIVE; 1 where it was taken away before that.
provide() {
  local unknown=0 before=''
  look
  case $state in
    SUSPENDING | SUSPENDED | FAILED | DELETING) remove || die "$name cannot be made anew." ;;
  esac
  if [[ $state == gone ]]; then create; else say "$name is there: picking it up"; fi
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
        die "$name could not be had: the reason is above." ;;
      gone | DELETING) die "$name was deleted by somebody else." ;;
      unknown)
        ((++unknown < 20)) || die "gcloud cannot say what $name is: $(tail -n 3 "$scratch/error")" ;;
    esac
    pause
  done
}

remote() {
  cloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" \
    --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 --command="$2"
}
