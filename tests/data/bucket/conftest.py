"""Waits for the threads of a test, which would report their errors in another test."""

import threading

import pytest


@pytest.fixture(autouse=True)
def settled(request):
    """Lets the threads of a test fetch what they still want, at its end."""
    place = request.getfixturevalue("place") if "place" in request.fixturenames else None
    yield
    if place:
        place.proxy.rule = lambda request: None
    for thread in threading.enumerate():
        if thread.name == "fetch-ahead":
            thread.join(30)
