"""A gcloud for tests: one queued resource, its machine and a bucket, in its own folder (STAND_IN).

    calls           every call, a line each: what was asked, as words that a shell would take
    made, deleted   a line for each request that succeeded
    resource.json   the queued resource, while there is one: state, type, made_by
    machine/        its home folder while it is ACTIVE; commands are really run there
    machine1/       the home folder of the second host, if the resource is a slice of several
    hosts           a line for each start of a host's process: its number and libtpu's variables
    bucket/         what gs://bucket holds
    scenario.json   what goes wrong, below
    plays           what the next starts of the trainer do, see TRAINER

The scenario: `hosts`, their number (1); `host`: "fails", its process; `states`, those that
descriptions go through after each creation; `quota`, refused; `create_seconds`; `install`: "fails";
`delete`: "fails" or "hangs"; `account`: who is logged in; `copies`: "fail", those to the bucket;
`drops`, how many connections to the log are cut.
"""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
RESOURCE = HERE / "resource.json"
ZONE = ["--zone=us-west4-a", "--project=my-project", "--quiet"]

# The machine's python3: uv's environment holds a python that plays the trainer.
PYTHON = """#!/bin/sh
case "$*" in
  *"pip install"*"[tpu,cloud]"*) grep -q '"install": "fails"' "$STAND_IN/scenario.json" && {
      echo "no matching distribution" >&2; exit 1; } ;;
  *"uv venv"*) mkdir -p .venv/bin && cp "$STAND_IN/trainer" .venv/bin/python ;;
esac
exit 0
"""

# The metadata server of a slice of two hosts.
CURL = """#!/bin/sh
case "$*" in
  *worker-network-endpoints) echo "unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3" ;;
  *agent-worker-number) echo "$WORKER" ;;
  *) exit 22 ;;
esac
"""

# Serves as a host of a slice. Or trains 100 updates more than the run has in the bucket, and then
# plays the next line of `plays`: a status to end with; `wait` for SIGTERM; or `preempted`, at once
# and with all that runs there.
TRAINER = """#!/usr/bin/env bash
[ "$1" = -c ] && { echo /lib/libtpu.so; exit; }
[ "$2" = scripts.tpu.tpu_host ] && {
  echo "$CLOUD_TPU_TASK_ID $TPU_HOSTNAME_OVERRIDE $TPU_MESH_CONTROLLER_ADDRESS" \\
    "$TF_PLUGGABLE_DEVICE_LIBRARY_PATH" >>"$STAND_IN/hosts"
  grep -q '"host": "fails"' "$STAND_IN/scenario.json" && { echo "no TPU here"; exit 1; }
  echo "this host serves on port $3"
  while :; do sleep 0.1; done
}
run=job/runs/gs-bucket-runs-job
copy() {
  grep -q '"copies": "fail"' "$STAND_IN/scenario.json" || { cp -r $run/* "$place"; return; }
  echo "crescendo train: gs://bucket/runs/job lacks the newest files of the run, which are in $run."
  exit 75
}
trap 'echo stopped, with a checkpoint; copy; exit 75' TERM
echo "$@" >>"$STAND_IN/trained"
echo "$TF_PLUGGABLE_DEVICE_LIBRARY_PATH" >>"$STAND_IN/libraries"
for word; do
  case $word in --model_dir=gs://*) place=$STAND_IN/${word#--model_dir=gs://} ;; esac
done
mkdir -p $run "$place"
echo "--epochs=1" >$run/flags.txt
echo $(($(cat "$place/updates" 2>/dev/null || echo 0) + 100)) >$run/updates
until [ -e "$run/$(cat log_name)" ]; do sleep 0.01; done
play=$(head -n 1 "$STAND_IN/plays")
sed -i 1d "$STAND_IN/plays"
echo "update $(cat $run/updates), then $play"
case $play in
  wait) while :; do sleep 0.1; done ;;
  preempted) copy; sleep 1; "$STAND_IN/gcloud" preempt ;;
  *) copy; exit "$play" ;;
esac
"""

# Notes each call, and prints a plan as the real program does.
SUBMITTER = """#!/bin/sh
echo "$@" >>"$STAND_IN/python_calls"
[ "$3" = fetch ] || exec {python} "$@"
"""


def scenario(name):
    return json.loads((HERE / "scenario.json").read_text()).get(name)


def note(file, line):
    with open(HERE / file, "a", encoding="utf-8") as out:
        out.write(line + "\n")


def fail(message, status=1):
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    sys.exit(status)


def resource():
    if not RESOURCE.exists():
        fail("NOT_FOUND: Resource 'projects/my-project/…/queuedResources/…' was not found")
    return json.loads(RESOURCE.read_text())


def keep(found):
    temporary = RESOURCE.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(found))
    temporary.replace(RESOURCE)


def machines():
    """The home folders of the hosts."""
    return [HERE / f"machine{index or ''}" for index in range(scenario("hosts") or 1)]


def end_machines():
    """Removes the machines as a power failure does: processes are killed, disks are lost."""
    for file in HERE.glob("machine*/crescendo/*.pid"):
        for kill in (os.killpg, os.kill):
            try:
                kill(int(file.read_text().split()[0]), signal.SIGKILL)
            except OSError:
                continue
    for machine in machines():
        if machine.exists():
            machine.rename(HERE / f"gone{time.monotonic_ns()}")


def create(words):
    time.sleep(scenario("create_seconds") or 0)
    if RESOURCE.exists():
        fail("ALREADY_EXISTS: it is there")
    if scenario("quota"):
        fail("RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' exceeded")
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert given["node-id"] == words[0], words
    labels = given.get("labels", "").removeprefix("made_by=")
    keep({"state": "CREATING", "type": given["accelerator-type"], "made_by": labels})
    (HERE / "states").write_text("\n".join(scenario("states") or ["PROVISIONING", "ACTIVE"]))
    note("made", words[0])


def describe(words):
    found = resource()
    states = (HERE / "states").read_text().split() if (HERE / "states").exists() else []
    if states:
        found["state"] = states.pop(0)
        (HERE / "states").write_text("\n".join(states))
        keep(found)
    if found["state"] == "ACTIVE":
        for machine in machines():
            machine.mkdir(exist_ok=True)
    if words[-1] == "--format=value(state.failedData.error.message)":
        print("There is no more capacity in the zone")
    else:
        print(found["state"], found["type"], found["made_by"], sep="\t")


def delete(words):
    assert "--force" in words
    resource()
    if scenario("delete") == "hangs":
        time.sleep(600)
    if scenario("delete") == "fails":
        fail("PERMISSION_DENIED: tpu.queuedResources.delete")
    end_machines()
    RESOURCE.unlink()
    note("deleted", words[0])


def asked_machines(words):
    """The home folders and the environments of the hosts that --worker names."""
    if resource()["state"] != "ACTIVE":
        fail("Cloud TPU node is not READY")
    (worker,) = [w.removeprefix("--worker=") for w in words if w.startswith("--worker=")]
    chosen = {"all": machines(), "0": machines()[:1]}[worker]
    path = f"{HERE}/machine_bin:{os.environ['PATH']}"
    return [
        (machine, dict(os.environ, HOME=str(machine), PATH=path, WORKER=str(index)))
        for index, machine in enumerate(chosen)
    ]


def ssh(words):
    (command,) = [w.removeprefix("--command=") for w in words if w.startswith("--command=")]
    found = asked_machines(words)
    drops = scenario("drops") or 0
    cut = " follow " in command and (HERE / "calls").read_text().count(" follow ") <= drops
    if cut:
        command = command.replace("bash", "timeout 0.7 bash", 1)
    started = [
        subprocess.Popen(["bash", "-c", command], cwd=machine, env=environment)
        for machine, environment in found
    ]
    sys.exit(max(process.wait() for process in started))


def scp(words):
    for machine, _ in asked_machines(words):
        shutil.copy(words[0], machine)


def main():
    words = sys.argv[1:]
    if words == ["preempt"]:
        keep({**resource(), "state": "SUSPENDED"})
        end_machines()
        return
    note("calls", shlex.join(words))
    if words[0] == "auth":
        print(scenario("account") or "")
    elif words[:2] == ["storage", "ls"]:
        if words[2] != "gs://bucket":
            fail(f"{words[2]} not found: 404.")
    else:
        assert words[:2] == ["compute", "tpus"], words
        assert set(ZONE) <= set(words), words
        verbs = {"create": create, "describe": describe, "delete": delete, "ssh": ssh, "scp": scp}
        assert words[2] == ("tpu-vm" if words[3] in ("ssh", "scp") else "queued-resources"), words
        verbs[words[3]]([word for word in words[4:] if word not in ZONE])


if __name__ == "__main__":
    main()
