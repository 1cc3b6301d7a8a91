"""Records of ArrayRecord files, read by the parts of a file that hold them."""

import random

import pytest
from array_record.python import array_record_module

from trainer.data.tfds.record_ranges import FormatError, read_index, read_records

OPTIONS = {"options": "readahead_buffer_size:0,max_parallelism:1"}


class Parts:
    """A file of which only what was read counts."""

    def __init__(self, path):
        self.content, self.read = path.read_bytes(), []

    def __call__(self, start, stop):
        assert 0 <= start < stop <= len(self.content)
        self.read.append((start, stop))
        return self.content[start:stop]


def open_file(path):
    return array_record_module.ArrayRecordReader(path, **OPTIONS)


def written(path, count, size, options="group_size:1"):
    numbers = random.Random(count)
    records = [numbers.randbytes(numbers.randrange(2 * size + 1)) for _ in range(count)]
    writer = array_record_module.ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return records, Parts(path)


@pytest.mark.parametrize(
    ("count", "size", "options"),
    [
        (1, 10, "group_size:1"),
        (5, 100_000, "group_size:1"),  # Headers of blocks lie within the records.
        (1251, 4000, "group_size:1"),
        (30_000, 30, "group_size:1"),  # The footer is longer than what is read at first.
        (1000, 500, "group_size:16"),
        (500, 3000, "group_size:7"),
        (300, 7000, "group_size:1,uncompressed"),
    ],
)
def test_records_equal_those_of_the_whole_file(tmp_path, count, size, options):
    records, parts = written(tmp_path / "file", count, size, options)
    index = read_index(parts, len(parts.content))
    assert index.records[-1] == count
    for seed in range(20):
        numbers = random.Random(seed).sample(range(count), min(count, 16))
        parts.read.clear()
        found = read_records(parts, index, numbers, open_file)
        assert found == [records[number] for number in numbers]
        assert len(parts.read) <= len(numbers)


def test_neighbours_are_read_in_one_part(tmp_path):
    records, parts = written(tmp_path / "file", 100, 3000)
    index = read_index(parts, len(parts.content))
    parts.read.clear()
    assert read_records(parts, index, range(20, 60), open_file) == records[20:60]
    assert len(parts.read) == 1


def test_only_the_records_and_the_end_of_the_file_are_read(tmp_path):
    _, parts = written(tmp_path / "file", 400, 20_000)
    index = read_index(parts, len(parts.content))
    read_records(parts, index, [7, 300], open_file)
    assert sum(stop - start for start, stop in parts.read) < 2**17 + 82_000


def test_a_damaged_record_is_an_error_and_no_other_record(tmp_path):
    records, parts = written(tmp_path / "file", 50, 3000, "group_size:1,uncompressed")
    index = read_index(parts, len(parts.content))
    (start, stop) = index.ranges([20])[0]
    middle = (start + stop) // 2
    parts.content = parts.content[:middle] + b"damage" + parts.content[middle + 6 :]
    with pytest.raises(RuntimeError):
        read_records(parts, index, [20], open_file)
    assert read_records(parts, index, [19, 21], open_file) == [records[19], records[21]]


def test_what_cannot_be_read_in_parts_is_told(tmp_path):
    _, parts = written(tmp_path / "file", 50, 3000, "group_size:1,brotli:2")
    with pytest.raises(FormatError, match="by the method 'b'"):
        read_index(parts, len(parts.content))
    with pytest.raises(FormatError, match="not that of an ArrayRecord file"):
        read_index(parts, 1000)


def test_damage_anywhere_in_the_end_of_a_file_is_told_or_harmless(tmp_path):
    """The reader that decodes the records verifies them, and what the footer says of them."""
    records, parts = written(tmp_path / "file", 60, 2000)
    whole, numbers = parts.content, random.Random(0)
    place = read_index(parts, len(whole)).footer[0]
    for _ in range(300):
        at = numbers.randrange(place, len(whole) - 2**16 + 200)
        damaged = whole[:at] + numbers.randbytes(8) + whole[at + 8 :]
        parts.content = damaged[: len(whole)]
        try:
            index = read_index(parts, len(whole))
            found = read_records(parts, index, [3, 40], open_file)
        except (FormatError, RuntimeError, ValueError, IndexError):
            continue
        assert found == [records[3], records[40]]
