import functools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.configs import layouts, parsed
from trainer.schedule import cost, plan
from trainer.schedule.trajectory import from_config

BANDWIDTH, LATENCY = 8.0, 100.0  # 10⁹ bytes a second; 10⁻⁴ s a step


def on(*, replicas=1, hosts=1, example=1e-3, fixed=0.0, parameters=1_000_000):
    return cost.machines(
        replicas=replicas,
        hosts=hosts,
        compute=cost.Compute(example, fixed),
        parameters=parameters,
        bandwidth=BANDWIDTH,
        latency=LATENCY,
    )


@functools.cache
def phases(recipe, replicas=1):
    config = parsed(f"--flagfile=flags/{recipe}.flags")
    schedule = from_config(config, 60_000, replicas)
    return list(plan.phases(schedule, layouts(config, replicas)))


def rung(vectors):
    """The ring all-reduce step by step, on one vector a host, in place.

    Returns the bytes that each host sent, and the seconds that all steps took.
    """
    hosts, part = len(vectors), len(vectors[0]) // len(vectors)
    sent, seconds = [0] * hosts, 0.0

    def step(chunk_of, arrive):
        nonlocal seconds
        messages = []
        for host in range(hosts):  # All send at once.
            i = chunk_of(host) % hosts * part
            messages.append((i, vectors[host][i : i + part]))
            sent[host] += 4 * part
        for host, (i, numbers) in enumerate(messages):
            to = vectors[(host + 1) % hosts]
            to[i : i + part] = arrive(to[i : i + part], numbers)
        seconds += 4 * part / (BANDWIDTH * 1e9 / 8) + LATENCY / 1e6

    for turn in range(hosts - 1):  # Then each host has the sum of one chunk,
        step(
            lambda host, t=turn: host - t,
            lambda own, new: list(map(sum, zip(own, new, strict=True))),
        )
    for turn in range(hosts - 1):  # and hands it round.
        step(lambda host, t=turn: host + 1 - t, lambda own, new: new)
    return sent, seconds


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 7, 16])
def test_the_all_reduce_is_the_rings(hosts):
    numbers = 5 * hosts
    vectors = [[host * 1000 + i for i in range(numbers)] for host in range(hosts)]
    total = [sum(column) for column in zip(*vectors, strict=True)]
    sent, seconds = rung(vectors)
    assert vectors == [total] * hosts
    found = on(replicas=hosts, hosts=hosts, parameters=numbers)
    assert sent == pytest.approx([found.bytes_sent] * hosts)
    assert found.communication == pytest.approx(seconds)


def test_an_update_by_hand():
    # 4 MB: each of 4 hosts sends 6 steps of 1 MB, at 1 ms + 0.1 ms; 1000 / 8 examples of 1 ms.
    found = on(replicas=8, hosts=4, fixed=0.01)
    (first, *_) = phases("fashion_mnist_grow")
    assert found.bytes_sent == 6_000_000
    assert cost.update_seconds(found, 1000) == pytest.approx(0.125 + 0.01 + 6 * 1.1e-3)
    of = cost.phase_cost(first, found)
    assert of.update_seconds == pytest.approx(0.016 + 0.01 + 0.0066)
    assert of.communication_share == pytest.approx(0.0066 / 0.0326)
    assert of.bytes_per_example == pytest.approx(6_000_000 / 128)
    assert of.seconds == pytest.approx(2250 * 0.0326)
    assert (
        cost.columns(found, 60_000)["epochs an hour"](first) == f"{3600 * 128 / 0.0326 / 6e4:.4g}"
    )


def test_one_host_does_not_communicate():
    found = on(replicas=4)
    assert (found.bytes_sent, found.communication) == (0, 0)
    grow = phases("fashion_mnist_grow", 4)
    assert cost.efficiency(grow, found) == pytest.approx(1)
    assert cost.total(grow, found) == pytest.approx(
        sum(phase.updates * phase.batch_size for phase in grow) / 4 * 1e-3
    )
    assert (cost.half_communication(found), cost.largest_paying(found)) == (0, 0)
    assert "batch" not in cost.summary(grow, found)


MACHINES = st.builds(
    lambda hosts, each, example, fixed, parameters: on(
        replicas=hosts * each, hosts=hosts, example=example, fixed=fixed, parameters=parameters
    ),
    hosts=st.integers(2, 64),
    each=st.integers(1, 8),
    example=st.floats(1e-6, 1.0),
    fixed=st.floats(0, 0.1),
    parameters=st.integers(1, 10**9),
)


@given(MACHINES, st.integers(1, 10**6))
def test_twice_the_batch_halves_the_bytes_of_an_example(machines, batch_size):
    def phase(size):
        return plan.Phase(0.0, 0, 10, size, 0.1, 0.9, 1.0, 32, 1)

    one, two = (
        cost.phase_cost(phase(batch_size), machines),
        cost.phase_cost(phase(2 * batch_size), machines),
    )
    assert two.bytes_per_example == pytest.approx(one.bytes_per_example / 2)
    assert two.update_seconds < 2 * one.update_seconds
    assert two.communication_share < one.communication_share


@given(MACHINES)
def test_the_batches_where_communication_counts(machines):
    def parts(batch_size):
        """Communication, and all but examples, as parts of the update."""
        seconds = cost.update_seconds(machines, batch_size)
        return machines.communication / seconds, (
            machines.communication + machines.compute.fixed
        ) / seconds

    half, enough = cost.half_communication(machines), cost.largest_paying(machines)
    assert half <= enough
    if half:
        assert parts(half)[0] <= 0.5 + 1e-9
        assert parts(half - 1)[0] > 0.5 - 1e-9
    assert parts(enough)[1] <= 0.1 + 1e-9
    assert parts(enough - 1)[1] > 0.1 - 1e-9


@given(st.integers(1, 16), st.integers(1, 8), st.floats(0, 0.1))
def test_time_falls_with_the_replicas_of_a_host_and_never_as_fast_as_they_grow(hosts, each, fixed):
    grow = phases("fashion_mnist_grow")
    few = on(replicas=hosts * each, hosts=hosts, fixed=fixed)
    many = on(replicas=hosts * each * 2, hosts=hosts, fixed=fixed)
    assert cost.total(grow, many) < cost.total(grow, few)
    assert cost.efficiency(grow, many) <= cost.efficiency(grow, few) + 1e-12 <= 1 + 2e-12


def test_more_hosts_pay_for_large_batches_alone():
    few, many = on(replicas=2, hosts=2), on(replicas=16, hosts=16)
    assert cost.update_seconds(many, 8) > cost.update_seconds(few, 8)
    assert cost.update_seconds(many, 1024) < cost.update_seconds(few, 1024)


def test_growth_saves_communication():
    """The same examples in fewer updates."""
    found = on(replicas=2, hosts=2)
    grow, decay = phases("fashion_mnist_grow", 2), phases("fashion_mnist_decay", 2)
    updates = [sum(phase.updates for phase in run) for run in (decay, grow)]
    saved = (updates[0] - updates[1]) * found.communication
    examples = sum(p.updates * p.batch_size for p in decay) - sum(
        p.updates * p.batch_size for p in grow
    )
    assert cost.total(decay, found) - cost.total(grow, found) == pytest.approx(
        saved + examples / 2 * 1e-3
    )


@given(st.floats(1e-6, 1.0), st.floats(0, 10.0), st.integers(1, 8))
def test_a_run_of_several_batch_sizes_tells_both_parts(example, fixed, replicas):
    times = {size: fixed + size / replicas * example for size in (128, 640, 3200)}
    found = cost.measured(times, replicas)
    assert found.example == pytest.approx(example, rel=1e-6, abs=1e-9 * (fixed + example))
    assert found.fixed == pytest.approx(fixed, rel=1e-6, abs=1e-9 * 3200 * example)


def test_a_run_of_one_batch_size_tells_their_sum():
    assert cost.measured({256: 0.5}, replicas=2) == cost.Compute(0.5 / 128, 0.0)


@given(st.floats(1e-3, 1.0), st.floats(1e-3, 1.0))
def test_no_part_is_negative_whatever_was_measured(small, large):
    found = cost.measured({128: small, 640: large}, replicas=1)
    assert found.example >= 0
    assert found.fixed >= 0
    assert found.fixed + 640 * found.example == pytest.approx(large)
    assume(small <= large <= 5 * small)
    assert found.fixed + 128 * found.example == pytest.approx(small)


def test_the_first_point_of_a_run_does_not_count():
    seconds = [1.5, 0.2, 0.21, 0.19, 0.2]
    points = [{"batch_size": 128, "examples_per_second": 128 / s} for s in seconds]
    points.append({"batch_size": 640, "examples_per_second": 640.0})
    assert cost.medians(points) == {128: pytest.approx(0.2), 640: 1.0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00123, "1.23 ms"), (1, "1 s"), (59.96, "60 s"), (90, "1.5 min"), (7200, "2 h")],
)
def test_durations(seconds, text):
    assert cost.duration(seconds) == text
