"""A session of `scripts/test.sh --quick`, in a process of its own."""

import re
import subprocess
import sys

from tests.support.forked_process import starts_of_their_own


def test_each_test_that_starts_a_process_is_skipped():
    """The first one must not leave a broken connection to the fork server for the next one."""
    tests = ["tests/system/output_test.py", "tests/config/flagfile_reader_test.py"]
    command = [sys.executable, "-m", "pytest", "--quick", "-q", "-p", "no:cacheprovider", *tests]
    with starts_of_their_own():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed, skipped = map(int, re.findall(r"(\d+) (?:passed|skipped)", done.stdout))
    assert passed > 0
    assert skipped > 1
