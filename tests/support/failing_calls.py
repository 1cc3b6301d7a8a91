"""System calls that fail in this process as they do on a disk that is damaged, or over NFS.

The kernel's own filter (seccomp) answers in their place, and cannot be taken off again: for a
process that is made for it.
"""

import ctypes
import struct

FLOCK, CLOSE, FSYNC = 73, 3, 74  # on x86-64
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def fail(call: int, error: int, descriptor: int | None = None) -> None:
    """Makes a system call fail with `error`; of `descriptor` alone, if one is given."""
    load, equal, give = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0), (equal, 0, 1 if descriptor is None else 3, call)]
    if descriptor is not None:
        code += [(load, 0, 0, 16), (equal, 0, 1, descriptor)]
    code += [(give, 0, 0, 0x00050000 | error), (give, 0, 0, 0x7FFF0000)]
    packed = b"".join(struct.pack("HBBI", *each) for each in code)
    kept = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(code), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0
