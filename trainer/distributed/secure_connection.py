"""Authenticated connections between workers: both ends prove that they know the run's secret.

First, a calling worker and the chief exchange these bytes:

    hello   caller → chief   version, the caller's nonce, its index, the number of workers
    answer  chief → caller   version, the chief's nonce
    proof   caller → chief   HMAC-SHA256, with the secret as key, of "caller", hello and answer
    proof   chief → caller   HMAC-SHA256, with the secret as key, of "chief", hello and answer

A nonce is 32 random bytes that are new for each connection, so a proof from another connection is
not valid. Each later message has a bounded length, and carries an HMAC of its sequence number,
length and content. Each direction of each connection has its own key for the HMAC. Nothing is
encrypted.
"""

import hmac
import os
import socket
import struct
import threading
import time

VERSION = 2  # The first byte of a connection. Connections of version 1 began with "{".
HELLO = struct.Struct("!B32sII")
ANSWER = struct.Struct("!B32s")
PROOF_BYTES = 32
HEADER = struct.Struct("!I32s")
_PLACE = struct.Struct("!QI")


class ForgedError(OSError):
    """The other end did not prove that it knows the secret, or a message is not authentic."""


def hello(index: int, count: int) -> bytes:
    """Returns the first bytes that worker `index` of `count` sends."""
    return HELLO.pack(VERSION, os.urandom(32), index, count)


def answer() -> bytes:
    """Returns the first bytes that the chief sends."""
    return ANSWER.pack(VERSION, os.urandom(32))


def proof(secret: bytes, transcript: bytes, *, chief: bool) -> bytes:
    """Returns the proof that one end knows the secret; `transcript` is hello + answer."""
    return _mac(secret, b"proof of the " + (b"chief" if chief else b"caller"), transcript)


def _mac(key: bytes, purpose: bytes, text: bytes) -> bytes:
    return hmac.digest(key, b"crescendo %s\0%s" % (purpose, text), "sha256")


class Line:
    """An authenticated connection: both ends have exchanged their proofs."""

    def __init__(
        self, connection: socket.socket, secret: bytes, transcript: bytes, *, chief: bool
    ) -> None:
        """Takes over `connection`; `chief` is true if this end is the chief."""
        self.connection = connection
        own, other = (b"chief", b"caller") if chief else (b"caller", b"chief")
        self._sending_key = _mac(secret, b"line from the " + own, transcript)
        self._receiving_key = _mac(secret, b"line from the " + other, transcript)
        self._sent = self._received = 0
        self._sending = threading.Lock()

    def frame(self, message: bytes) -> bytes:
        """Returns the header and `message`, and counts the message as sent."""
        place = _PLACE.pack(self._sent, len(message))
        self._sent += 1
        return HEADER.pack(len(message), _mac(self._sending_key, place, message)) + message

    def size(self, header: bytes, most_bytes: int) -> int:
        """Returns the message length in `header`; raises ForgedError if it exceeds `most_bytes`."""
        size, _ = HEADER.unpack(header)
        if size > most_bytes:
            raise ForgedError(f"a message of {size:,} bytes")
        return size

    def check(self, header: bytes, message: bytes) -> None:
        """Counts a received message; raises a ForgedError if it is not the expected message."""
        place = _PLACE.pack(self._received, len(message))
        _, mac = HEADER.unpack(header)
        if not hmac.compare_digest(mac, _mac(self._receiving_key, place, message)):
            raise ForgedError("a message that the other end did not send")
        self._received += 1

    def send(self, message: bytes) -> None:
        """Sends one message; several threads may call this function.

        Raises:
          OSError: if the connection has ended, or the connection's timeout passes.
        """
        with self._sending:
            self.connection.sendall(self.frame(message))

    def receive(self, most_bytes: int, end: float | None = None) -> bytes:
        """Returns the next message; only one thread may call this function.

        Args:
          most_bytes: largest accepted length of the message.
          end: deadline, as a time of `time.monotonic`. If it is None, the connection's timeout
            limits the wait for each piece of the message.

        Raises:
          OSError: if the deadline passes, the connection has ended, or the message is forged.
        """
        header = exactly(self.connection, HEADER.size, end)
        message = exactly(self.connection, self.size(header, most_bytes), end)
        self.check(header, message)
        return message

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()


def exactly(connection: socket.socket, size: int, end: float | None = None) -> bytes:
    """Receives exactly `size` bytes; `end` is as in `Line.receive`.

    Raises:
      OSError: if the connection ends or the deadline passes first.
    """
    received = bytearray()  # A message may have megabytes, and `bytes` would copy it at each +=.
    while len(received) < size:
        if end is not None:
            connection.settimeout(max(0.01, end - time.monotonic()))
        if not (piece := connection.recv(size - len(received))):
            raise ConnectionError("the connection has ended")
        received += piece
        if end is not None and time.monotonic() > end:
            raise TimeoutError("too late")
    return bytes(received)


def call(connection: socket.socket, secret: bytes, index: int, count: int, end: float) -> Line:
    """Authenticates worker `index` of `count` and the chief to each other; returns the connection.

    Raises:
      ForgedError: if the other end does not prove that it knows the secret.
      OSError: if the connection ends or the deadline `end` passes first.
    """
    connection.settimeout(max(0.01, end - time.monotonic()))
    first = hello(index, count)
    connection.sendall(first)
    try:
        second = exactly(connection, ANSWER.size, end)
    except TimeoutError as error:
        raise ForgedError("it does not answer") from error
    if second[0] != VERSION:
        raise ForgedError(f"its version is {second[0]}, not {VERSION}")
    transcript = first + second
    connection.sendall(proof(secret, transcript, chief=False))
    try:
        chief_proof = exactly(connection, PROOF_BYTES, end)
    except OSError as error:
        raise ForgedError("it does not accept this worker's secret") from error
    if not hmac.compare_digest(chief_proof, proof(secret, transcript, chief=True)):
        raise ForgedError("it does not know the secret")
    return Line(connection, secret, transcript, chief=False)
