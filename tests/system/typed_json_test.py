import pytest

from trainer.system import typed_json as t
from trainer.system.typed_json import (
    DamagedError,
    WrongError,
    fields,
    integer,
    list_of,
    number,
    optional,
)

POINT = fields({"a": integer(1, 9)}, {"b": optional(number(0, 1)), "c": t.table_of(t.text)})
WHOLE = fields({"points": list_of(POINT)})


def test_what_is_declared_is_checked_and_other_fields_pass():
    text = '{"points": [{"a": 1, "b": 1, "c": {"x": "y"}, "d": [true]}], "e": 1e400}'
    found = t.parsed(text.encode(), WHOLE)
    assert found == {
        "points": [{"a": 1, "b": 1.0, "c": {"x": "y"}, "d": [True]}],
        "e": float("inf"),
    }
    assert isinstance(found["points"][0]["b"], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("{", "it is not JSON: Expecting property name .* at line 1, column 2"),
        ("[" * 100_000, "it is nested too deeply"),
        ("9" * 5000, "it has a number with too many digits"),
        (b"\xff", "it is not UTF-8: byte 0 cannot be decoded"),
        ("[]", r"it is not an object of named values, but \[\]"),
        ("{}", "points is missing"),
        ('{"points": {}}', "points is not a list"),
        ('{"points": [3]}', r"points\[0\] is not an object of named values, but 3"),
        ('{"points": [{}]}', r"points\[0\]\.a is missing"),
        ('{"points": [{"a": 1}, {"a": true}]}', r"points\[1\]\.a is True, not an integer from 1"),
        ('{"points": [{"a": 1.0}]}', r"a is 1.0, not an integer from 1 to 9"),
        ('{"points": [{"a": 10}]}', r"a is 10, not an integer"),
        (f'{{"points": [{{"a": {"9" * 400}}}]}}', r"a is 9+\.\.\.9+, not an integer"),
        ('{"points": [{"a": 1, "b": NaN}]}', r"b is nan, not a number from 0 to 1"),
        (f'{{"points": [{{"a": 1, "b": {"9" * 400}}}]}}', r"b is 9+\.\.\.9+, not a number"),
        ('{"points": [{"a": 1, "c": {"x": 1}}]}', r"c\.'x' is 1, not a string"),
        (
            '{"points": [{"a": 1, "c": {"x": "\\ud800"}}]}',
            r"c\.'x' is .*, which has half of a character",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedError, match=f"^{path} is damaged: .*{message}") as error:
        t.read(path, WHOLE)
    assert len(str(error.value)) < 400
    assert error.value.reason.isprintable()


def test_a_byte_order_mark_of_an_editor_is_passed_over():
    assert t.parsed("\ufeff[]".encode(), list_of(t.anything)) == []


def test_lines_one_by_one(tmp_path):
    path = tmp_path / "x.jsonl"
    long = b"[" + b"1," * 40_000 + b"1]\n"
    path.write_bytes(b"[1]\n" + long + b"\n[2]\n[3]\r\n{4")
    kind = list_of(integer())
    found = list(t.read_lines(path, kind))
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    values = [value for _, value in found if not isinstance(value, WrongError)]
    assert values == [[1], [2], [3]]
    assert str(found[1][1]) == "it has more than 65,536 bytes"
    path.write_bytes(b"x" * 200_000)  # Not what a kill leaves of a line.
    ((number, error),) = t.read_lines(path, kind)
    assert (number, str(error)) == (1, "it has more than 65,536 bytes")
