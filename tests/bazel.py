"""What each py_test of BUILD runs: pytest, on the file that it is given."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
