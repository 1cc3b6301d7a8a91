import functools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.configs import layouts, parsed
from trainer.schedule import cost, plan
from trainer.schedule.trajectory import from_config

BANDWIDTH, LATENCY = 8.0, 100.0  # These are 10⁹ bytes a second and 10⁻⁴ s a step.


def make_machines(*, replicas=1, hosts=1, example=1e-3, fixed=0.0, parameters=1_000_000):
    return cost.Machines(
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


def ring_all_reduce(vectors):
    """Sums one vector per host in place, by the steps of a ring all-reduce.

    Returns the bytes that each host sent, and the seconds that all steps took.
    """
    hosts, part = len(vectors), len(vectors[0]) // len(vectors)
    sent, seconds = [0] * hosts, 0.0

    def step(chunk_of, arrive):
        nonlocal seconds
        messages = []
        for host in range(hosts):  # All hosts send at the same time.
            i = chunk_of(host) % hosts * part
            messages.append((i, vectors[host][i : i + part]))
            sent[host] += 4 * part
        for host, (i, numbers) in enumerate(messages):
            receiver = vectors[(host + 1) % hosts]
            receiver[i : i + part] = arrive(receiver[i : i + part], numbers)
        seconds += 4 * part / (BANDWIDTH * 1e9 / 8) + LATENCY / 1e6

    for turn in range(hosts - 1):  # After these steps, each host has the sum of one chunk.
        step(
            lambda host, t=turn: host - t,
            lambda own, new: list(map(sum, zip(own, new, strict=True))),
        )
    for turn in range(hosts - 1):  # These steps pass the sums to all hosts.
        step(lambda host, t=turn: host + 1 - t, lambda own, new: new)
    return sent, seconds


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 7, 16])
def test_bytes_and_seconds_of_an_all_reduce_are_those_of_a_ring(hosts):
    numbers = 5 * hosts
    vectors = [[host * 1000 + i for i in range(numbers)] for host in range(hosts)]
    total = [sum(column) for column in zip(*vectors, strict=True)]
    sent, seconds = ring_all_reduce(vectors)
    assert vectors == [total] * hosts
    machines = make_machines(replicas=hosts, hosts=hosts, parameters=numbers)
    assert sent == pytest.approx([machines.bytes_sent] * hosts)
    assert machines.communication == pytest.approx(seconds)


def test_the_cost_of_an_update_equals_a_calculation_by_hand():
    # Each of 4 hosts sends 6 × 1 MB, at 1 ms + 0.1 ms a step.
    # A replica computes 1000 / 8 examples of 1 ms each.
    machines = make_machines(replicas=8, hosts=4, fixed=0.01)
    (first, *_) = phases("fashion_mnist_grow")
    assert machines.bytes_sent == 6_000_000
    assert cost.update_seconds(machines, 1000) == pytest.approx(0.125 + 0.01 + 6 * 1.1e-3)
    result = cost.phase_cost(first, machines)
    assert result.update_seconds == pytest.approx(0.016 + 0.01 + 0.0066)
    assert result.communication_share == pytest.approx(0.0066 / 0.0326)
    assert result.bytes_per_example == pytest.approx(6_000_000 / 128)
    assert result.seconds == pytest.approx(2250 * 0.0326)
    assert (
        cost.columns(machines, 60_000)["epochs an hour"](first)
        == f"{3600 * 128 / 0.0326 / 6e4:.4g}"
    )


def test_one_host_does_not_communicate():
    machines = make_machines(replicas=4)
    assert (machines.bytes_sent, machines.communication) == (0, 0)
    grow = phases("fashion_mnist_grow", 4)
    assert cost.efficiency(grow, machines) == pytest.approx(1)
    assert cost.total(grow, machines) == pytest.approx(
        sum(phase.updates * phase.batch_size for phase in grow) / 4 * 1e-3
    )
    assert (cost.half_communication(machines), cost.largest_paying(machines)) == (0, 0)
    assert "batch" not in cost.summary(grow, machines)


MACHINES = st.builds(
    lambda hosts, replicas_per_host, example, fixed, parameters: make_machines(
        replicas=hosts * replicas_per_host,
        hosts=hosts,
        example=example,
        fixed=fixed,
        parameters=parameters,
    ),
    hosts=st.integers(2, 64),
    replicas_per_host=st.integers(1, 8),
    example=st.floats(1e-6, 1.0),
    fixed=st.floats(0, 0.1),
    parameters=st.integers(1, 10**9),
)


@given(MACHINES, st.integers(1, 10**6))
def test_twice_the_batch_halves_the_bytes_per_example(machines, batch_size):
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
def test_batch_sizes_at_which_communication_dominates_and_growth_stops_paying(machines):
    def parts(batch_size):
        """Returns the share of communication, and of all but the examples, in an update."""
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
def test_twice_the_replicas_per_host_save_time_but_less_than_half(hosts, per_host, fixed):
    grow = phases("fashion_mnist_grow")
    few = make_machines(replicas=hosts * per_host, hosts=hosts, fixed=fixed)
    many = make_machines(replicas=hosts * per_host * 2, hosts=hosts, fixed=fixed)
    assert cost.total(grow, many) < cost.total(grow, few)
    assert cost.efficiency(grow, many) <= cost.efficiency(grow, few) + 1e-12 <= 1 + 2e-12


def test_more_hosts_save_time_only_with_large_batches():
    few, many = make_machines(replicas=2, hosts=2), make_machines(replicas=16, hosts=16)
    assert cost.update_seconds(many, 8) > cost.update_seconds(few, 8)
    assert cost.update_seconds(many, 1024) < cost.update_seconds(few, 1024)


def test_growth_saves_the_communication_of_the_updates_it_saves():
    machines = make_machines(replicas=2, hosts=2)
    grow, decay = phases("fashion_mnist_grow", 2), phases("fashion_mnist_decay", 2)
    updates = [sum(phase.updates for phase in run) for run in (decay, grow)]
    saved = (updates[0] - updates[1]) * machines.communication
    examples = sum(p.updates * p.batch_size for p in decay) - sum(
        p.updates * p.batch_size for p in grow
    )
    assert cost.total(decay, machines) - cost.total(grow, machines) == pytest.approx(
        saved + examples / 2 * 1e-3
    )


@given(st.floats(1e-6, 1.0), st.floats(0, 10.0), st.integers(1, 8))
def test_a_run_of_several_batch_sizes_determines_both_parts_of_the_time(example, fixed, replicas):
    times = {size: fixed + size / replicas * example for size in (128, 640, 3200)}
    compute = cost.measured(times, replicas)
    assert compute.example == pytest.approx(example, rel=1e-6, abs=1e-9 * (fixed + example))
    assert compute.fixed == pytest.approx(fixed, rel=1e-6, abs=1e-9 * 3200 * example)


def test_a_run_of_one_batch_size_attributes_all_time_to_the_examples():
    assert cost.measured({256: 0.5}, replicas=2) == cost.Compute(0.5 / 128, 0.0)


@given(st.floats(1e-3, 1.0), st.floats(1e-3, 1.0))
def test_no_part_of_the_time_is_negative(small, large):
    compute = cost.measured({128: small, 640: large}, replicas=1)
    assert compute.example > 0
    assert compute.fixed >= 0
    assert compute.fixed + 640 * compute.example == pytest.approx(large)
    assume(small < large <= 5 * small)
    assert compute.fixed + 128 * compute.example == pytest.approx(small)


def test_a_larger_batch_that_is_not_slower_does_not_hide_the_time_of_the_examples():
    for large in (0.0096, 0.0144):
        compute = cost.measured({64: 0.0144, 192: large}, replicas=2)
        assert compute == cost.Compute(pytest.approx(large / 96), 0.0)


def test_a_host_reads_its_share_of_the_fastest_phase():
    machines = make_machines(replicas=4, hosts=2, example=1e-3, fixed=0.01)
    run = phases("fashion_mnist_grow", 4)
    largest = max(phase.batch_size for phase in run)  # The fixed time is shared by most examples.
    seconds = largest / 4 * 1e-3 + 0.01 + machines.communication
    phase, rate = cost.fastest_host(run, machines)
    assert phase.batch_size == largest
    assert rate == pytest.approx(largest / seconds / 2)


def test_the_median_discounts_the_first_point_of_a_run():
    seconds = [1.5, 0.2, 0.21, 0.19, 0.2]
    points = [{"batch_size": 128, "examples_per_second": 128 / s} for s in seconds]
    points.append({"batch_size": 640, "examples_per_second": 640.0})
    assert cost.medians(points) == {128: pytest.approx(0.2), 640: 1.0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00123, "1.23 ms"), (1, "1 s"), (59.96, "60 s"), (90, "1.5 min"), (7200, "2 h")],
)
def test_durations_have_three_digits_and_a_suitable_unit(seconds, text):
    assert cost.duration(seconds) == text
