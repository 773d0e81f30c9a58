"""Messages between processes: a line of JSON each, over a socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message as a line of JSON (Python's dialect: NaN and Infinity are allowed)."""
    connection.sendall(json.dumps(message).encode() + b"\n")


class LineReader:
    """Cuts what a socket sends into JSON messages."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.ended = False
        self._rest = b""
        self._waiting: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """Give the messages completed by what can be read now."""
        try:
            data = self.connection.recv(1 << 20)
        except ConnectionError:
            data = b""
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def next(self) -> dict[str, Any] | None:
        """Block until a message is complete; None once the other end has closed."""
        while not self._waiting and not self.ended:
            self._waiting += self.read()
        return self._waiting.pop(0) if self._waiting else None
