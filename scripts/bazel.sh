#!/usr/bin/env bash
# Runs Bazel on Debian without a network: scripts/bazel.sh test //:tests/sweep/grid_test. Without arguments
# it queries and builds all targets of BUILD, and runs the tests that take seconds. Debian's Bazel 4.2 does
# not read MODULE.bazel, so it gets a workspace outside the checkout's files, where its native rules replace
# rules_python.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

packages=(bazel-bootstrap bazel-rules-java bazel-rules-proto)
if ! command -v bazel-4 >/dev/null; then
  echo "Installing Debian's Bazel (once, 150 MB and a JDK) ..." >&2
  if ! debian_install "${packages[@]}"; then
    echo "Debian's Bazel could not be installed: as root, run apt-get install ${packages[*]}." >&2
    echo "Or use another Bazel from version 7.4.1 on, which reads MODULE.bazel, without this script." >&2
    exit 1
  fi
fi

checkout=$PWD
mkdir -p .venv/bazel/workspace .venv/bazel/stand_ins/{cc,python}
cd .venv/bazel/stand_ins
for rule in library binary test; do echo "py_$rule = native.py_$rule"; done >python/defs.bzl
for rule in library binary test toolchain toolchain_suite; do
  echo "cc_$rule = native.cc_$rule"
done >cc/defs.bzl
touch WORKSPACE python/BUILD cc/BUILD
# Every test depends on these, but only bazel coverage uses them.
for tool in coverage_report_generator lcov_merger; do
  echo "filegroup(name = \"$tool\", visibility = [\"//visibility:public\"])"
done >BUILD

cd ../workspace
cat >WORKSPACE <<END
workspace(name = "crescendo")
[local_repository(name = name, path = path) for name, path in {
    "rules_python": "../stand_ins",
    "rules_cc": "../stand_ins",
    "remote_coverage_tools": "../stand_ins",
    "rules_java": "/usr/share/bazel/rules/java",
    "rules_proto": "/usr/share/bazel/rules/proto",
}.items()]
END
cat >.bazelrc <<END
startup --output_user_root="$checkout/.venv/bazel/output" --max_idle_secs=30
import $checkout/.bazelrc
query --package_path="%workspace%:$checkout" --experimental_repository_disable_download
build --package_path="%workspace%:$checkout" --experimental_repository_disable_download
build --symlink_prefix=/
run --run_under="cd '$checkout' &&"
END

export PATH="$checkout/.venv/bin:$PATH"
if [ $# != 0 ]; then exec bazel-4 "$@"; fi
bazel-4 query //...
bazel-4 build //...
exec bazel-4 test //...
