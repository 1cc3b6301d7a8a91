"""Ranges of numbers as the value of a flag."""

import pytest

from trainer.config.number_range import NumberRange, must_be_range, parse


def test_both_ends_are_included():
    found = parse("3:5")
    assert found == NumberRange(3, 5)
    assert [number for number in range(8) if number in found] == [*found.numbers()] == [3, 4, 5]
    assert str(found) == "3:5"


@pytest.mark.parametrize(
    "text", ["", "3", "5:3", "0:2", "-1:2", "1:2:3", "a:b", "1: 2", "1:1" + 18 * "0"]
)
def test_all_else_is_refused(text):
    with pytest.raises(ValueError, match="is not a range"):
        parse(text)
    assert must_be_range("a range")(text) == "must be a range"


def test_the_largest_number_may_be_limited():
    problem = must_be_range("a small range", most=9)
    assert (problem("1:9"), problem("1:10")) == ("", "must be a small range")
