"""Folders within a folder, with the names that points of sweeps have."""

import io

import pytest

from trainer.buckets import client, url
from trainer.buckets.objects import ConflictError, MissingError
from trainer.buckets.subfolder import Subfolder

NAMES = (
    "momentum=0.9,seed=0",
    "anneal_epochs=30%+60%,x=1e-3",
    "a=30%25+60%2C",
    "a=%2F,b=%",
    "a=..",
)


def test_a_folder_and_its_own_url_are_the_same(place):
    for name in NAMES:
        check(place, name)


def check(place, name):
    below = Subfolder(place.connect(), name)
    other = client.connect(url.parse(f"{place.url}/{name}"))
    first = below.create("lease.json", b"1")
    with pytest.raises(ConflictError):
        other.create("lease.json", b"2")
    second = other.replace("lease.json", b"2", first)
    assert below.read("lease.json") == (b"2", second)
    assert below.replace("lease.json", b"3", second) == other.read("lease.json")[1]
    below.upload("generation-1/x", io.BytesIO(b"x"), 1)
    for objects in (below, other):
        assert objects.names("generation-") == ["generation-1/x"]
        assert objects.names("") == ["generation-1/x", "lease.json"]
    target = io.BytesIO()
    below.download("generation-1/x", target)
    assert target.getvalue() == b"x"
    below.delete("lease.json")
    with pytest.raises(MissingError):
        other.read("lease.json")
    assert place.connect().names("") == [f"{name}/generation-1/x"]
    below.delete("generation-1/x")
