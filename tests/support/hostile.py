"""Contents that a file of a run directory, or a field in it, may have instead of its own."""

import os
import socket

_NINES = b"9" * 400

# Contents of whole files.
CONTENTS = {
    "nothing": b"",
    "a_brace": b"{",
    "a_list": b"[]",
    "a_list_of_one": b"[1]",
    "null": b"null",
    "a_number": b"3",
    "400_digits": _NINES,
    "5000_digits": b"9" * 5000,
    "a_text": b'"x"',
    "true": b"true",
    "no_fields": b"{}",
    "zeros": bytes(64),
    "not_utf8": b'{"\xff": 1}',
    "utf16": '{"top1": 1}'.encode("utf-16"),
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "a_long_line": b"x" * 300_000,
    "binary": bytes(range(256)) * 9,
}
# Values of fields, as JSON has them.
VALUES = {
    "null": "null",
    "true": "true",
    "a_text": '"x"',
    "half_a_character": '"\\ud800"',
    "a_list": "[]",
    "an_object": "{}",
    "nested": "[" * 500 + "]" * 500,
    "negative": "-1",
    "400_digits": "9" * 400,
    "400_digits_and_a_fraction": "9" * 400 + ".5",
    "an_infinity": "Infinity",
    "nan": "NaN",
    "huge": "1e300",
    "large": "1e99",
    "tiny": "5e-324",
    "2^63": str(2**63),
}


def _linked_to(target):
    return lambda path: path.symlink_to(target)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        folder = os.open(path.parent, os.O_PATH)  # A socket's path has at most 107 bytes.
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def _of_gigabytes(path):
    with open(path, "wb") as file:
        file.truncate(5 * 2**30)


# What may stand in a file's place.
PLACES = {
    "a_folder": lambda path: path.mkdir(),
    "a_fifo": os.mkfifo,
    "a_device": _linked_to("/dev/zero"),
    "a_socket": _socket,
    "unreadable": _linked_to("/proc/self/mem"),  # As of a disk that is damaged: EIO.
    "five_gigabytes": _of_gigabytes,
    "a_circle": lambda path: path.symlink_to(path.name),
}


def put(path, name):
    """Puts one of CONTENTS or PLACES in the place of `path`."""
    path.unlink(missing_ok=True)
    if name in CONTENTS:
        path.write_bytes(CONTENTS[name])
    else:
        PLACES[name](path)


EVERY = [*CONTENTS, *PLACES]

RESULT = {
    "top1": "0.5",
    "loss": "1.0",
    "updates": "20",
    "seconds": "9.0",
    "epochs": "2.0",
    "examples_per_second": "100.0",
    "resumes": "0",
    "replicas": "1",
    "hosts": "1",
    "parameters": "1000",
    "update_seconds": '{"32": 0.1, "64": 0.2}',
}
NEEDED = ("top1", "loss", "updates", "seconds")
# What the fields of a result may be, though it is unusual.
POSSIBLE = {
    "large": {"loss", "seconds", "epochs", "examples_per_second"},
    "2^63": {"loss", "seconds", "epochs", "examples_per_second"},
    "tiny": {"top1", "loss", "seconds", "epochs", "examples_per_second"},
    "negative": {"loss"},
    "null": {"parameters"},
    "an_object": {"update_seconds"},
}


def text(values):
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def results():
    """Damaged results by what is wrong with them: a missing field, or a value that it cannot be."""
    found = {}
    for name in RESULT:
        for what, value in VALUES.items():
            if name not in POSSIBLE.get(what, ()):
                found[f"{name}-{what}"] = text({**RESULT, name: value})
    for name in NEEDED:
        found[f"{name}-missing"] = text({k: v for k, v in RESULT.items() if k != name})
    for name in ("replicas", "hosts"):
        found[f"{name}-missing"] = text({k: v for k, v in RESULT.items() if k != name})
    for i, size in enumerate(("0", "-1", "x", "1.5", "²", "9" * 400)):
        found[f"update_seconds-size{i}"] = text({**RESULT, "update_seconds": f'{{"{size}": 1}}'})
    return found
