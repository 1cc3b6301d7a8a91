import importlib.util
import sys

SERVES = """
import sys
print("{}", flush=True)
for line in sys.stdin:
    print('{"seconds": 2.0}', flush=True)
"""
DIES = """
import sys
print("{}", flush=True)
sys.stdin.readline()
"""


def test_a_dead_competitor_has_no_answers_and_the_others_keep_theirs(monkeypatch):
    spec = importlib.util.spec_from_file_location(
        "benchmark_turns", "scripts/benchmarks/benchmark_turns.py"
    )
    turns = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_turns", turns)  # where dataclasses look it up
    spec.loader.exec_module(turns)
    workers = [
        turns.start(name, [sys.executable, "-c", code], 1, 100)
        for name, code in {"lasts": SERVES, "dies": DIES, "lasts too": SERVES}.items()
    ]
    turns.take_turns(workers, rounds=3)
    assert [worker.rates() for worker in workers] == [[50.0] * 3, [], [50.0] * 3]
    assert all(worker.process.returncode is not None for worker in workers)
