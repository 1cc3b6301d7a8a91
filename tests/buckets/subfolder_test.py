"""Folders within a folder, with the names that points of sweeps have."""

import io

import pytest

from trainer.buckets import client, url
from trainer.buckets.objects import MissingError
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
    own = client.connect(url.parse(f"{place.url}/{name}"))
    version = own.create("lease.json", b"1")
    own.create("generation-1/x", b"x")
    assert below.read("lease.json") == own.read("lease.json") == (b"1", version)
    assert below.names("generation-") == ["generation-1/x"]
    assert below.names("") == own.names("") == ["generation-1/x", "lease.json"]
    target = io.BytesIO()
    below.download("generation-1/x", target)
    assert target.getvalue() == b"x"
    own.delete("lease.json")
    with pytest.raises(MissingError):
        below.read("lease.json")
    assert place.connect().names("") == [f"{name}/generation-1/x"]
    own.delete("generation-1/x")
