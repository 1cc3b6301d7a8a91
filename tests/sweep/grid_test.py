import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import UserError
from trainer.sweep import grid

NAMES = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True)
# Characters that folder names keep.
VALUES = st.text(alphabet="ab0.5%_+-", min_size=1, max_size=4)
# Characters with a meaning in the grid.
AWKWARD = st.text(alphabet="a0%,/;= .", min_size=1, max_size=5).map(str.strip).filter(bool)
AXES = st.dictionaries(
    NAMES, st.lists(VALUES, min_size=1, max_size=4, unique=True), min_size=1, max_size=4
)


@given(AXES, st.sampled_from([";", " ; "]), st.sampled_from([",", ", "]))
def test_a_grid_is_the_product_of_its_axes(axes, semicolon, comma):
    text = semicolon.join(f"{name}={comma.join(values)}" for name, values in axes.items())
    points = grid.parse(text)
    assert points == [
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    folders = [grid.folder(point) for point in points]
    assert len(set(folders)) == len(points)
    assert all("/" not in name and len(name.split()) == 1 for name in folders)


@given(NAMES, NAMES, st.lists(st.tuples(AWKWARD, AWKWARD), min_size=1, max_size=3))
def test_braces_may_enclose_any_value(one, other, pairs):
    if one == other:
        return
    text = f"{one}/{other}=" + ",".join(f"{{{a}}}/{{{b}}}" for a, b in pairs)
    expected = [{one: a, other: b} for a, b in pairs]
    if len({grid.folder(point) for point in expected}) < len(pairs):
        with pytest.raises(UserError, match="the same folder"):
            grid.parse(text)
    else:
        assert grid.parse(text) == expected


def test_the_examples_of_the_docstring_parse():
    assert grid.parse("initial_batch_size=128,256;augment=none,strong") == [
        {"initial_batch_size": "128", "augment": "none"},
        {"initial_batch_size": "128", "augment": "strong"},
        {"initial_batch_size": "256", "augment": "none"},
        {"initial_batch_size": "256", "augment": "strong"},
    ]
    assert grid.parse("initial_batch_size/ghost_batch_size=2/2,128/32") == [
        {"initial_batch_size": "2", "ghost_batch_size": "2"},
        {"initial_batch_size": "128", "ghost_batch_size": "32"},
    ]
    assert grid.parse("anneal_epochs={30%,60%},{50%,75%};seed=0") == [
        {"anneal_epochs": "30%,60%", "seed": "0"},
        {"anneal_epochs": "50%,75%", "seed": "0"},
    ]
    points = grid.parse("flagfile=flags/a.flags,flags/b.flags;seed=0,1")
    assert [grid.folder(point) for point in points] == [
        *("flagfile=a,seed=0", "flagfile=a,seed=1", "flagfile=b,seed=0", "flagfile=b,seed=1")
    ]


def test_folders_are_readable():
    (point,) = grid.parse(
        "anneal_epochs={30%,60%};model=tests.support.models:tiny;train_split=train[:9]"
    )
    assert grid.folder(point) == (
        "anneal_epochs=30%+60%,model=tests.support.models-tiny,train_split=train-9-"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not name a flag"),
        (" ; ", "does not name a flag"),
        ("seed", "has 'seed': write flag=value,value there"),
        ("--seed=0,1", "has '--seed=0,1'"),
        ("=1", "has '=1'"),
        ("seed=0,", "has '' for seed: write a value there"),
        ("seed=0,1;momentum=0.9;seed=2", "names seed twice"),
        ("seed/seed=0/1", "names seed twice"),
        ("seed=0,1,0", "gives 2 points the same folder seed=0"),
        ("a/b=1/2,3", "has '3' for a/b: write 2 values separated by slashes"),
        ("a/b=1/", "has '1/' for a/b"),
        ("anneal_epochs={30%,60%", "unmatched brace in 'anneal_epochs={30%,60%'"),
        ("anneal_epochs=30%},60%", "unmatched brace"),
        ("seed=" + "1" * 300, "longer than 240 bytes"),
    ],
)
def test_a_malformed_grid_is_rejected(text, message):
    with pytest.raises(UserError) as error:
        grid.parse(text)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


@given(st.integers(0, 30), st.integers(1, 9))
def test_shards_partition_the_points_evenly(count, n):
    points = [{"seed": str(i)} for i in range(count)]
    parts = [grid.part(points, f"{i}/{n}") for i in range(1, n + 1)]
    seeds = [int(point["seed"]) for part in parts for point in part]
    assert sorted(seeds) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert grid.part(points, None) == points


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "1/4/4", "-1/4", "a/b", ""])
def test_a_malformed_shard_is_rejected(text):
    with pytest.raises(UserError, match="write 1/4 for the first of four"):
        grid.part([], text)


def test_a_grid_with_too_many_points_is_rejected_before_it_is_expanded():
    seeds = ",".join(map(str, range(1000)))
    with pytest.raises(UserError, match=r"1,000,000 points, and at most 10,000 are allowed"):
        grid.parse(f"seed={seeds};epochs={seeds}")
