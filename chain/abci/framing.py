"""Frames of the ABCI socket: a message preceded by its length as an unsigned varint."""

from __future__ import annotations

from typing import Any, Final

from chain.codec.registry import message_class
from chain.codec.varint import delimited, uvarint

Request: Final = message_class("tendermint.abci.Request")
Response: Final = message_class("tendermint.abci.Response")

MAX_FRAME_BYTES: Final = 128 << 20
"""Above any block CometBFT can propose (100 MiB) with room for its frame."""
MAX_LENGTH_BYTES: Final = 5


class FrameError(Exception):
    """The peer does not speak ABCI; the connection cannot go on."""


def frame(message: Any) -> bytes:
    """One message with its length in front."""
    return delimited(message.SerializeToString())


RESPONSE_FIELDS: Final = {field.name: field.number for field in Response.DESCRIPTOR.fields}


def response_frame(kind: str, body: Any) -> bytes:
    """A Response holding ``body`` (a message, or its bytes) as its ``kind``, framed."""
    raw = body if isinstance(body, bytes) else body.SerializeToString()
    inner = uvarint(RESPONSE_FIELDS[kind] << 3 | 2) + uvarint(len(raw))
    return uvarint(len(inner) + len(raw)) + inner + raw


class FrameReader:
    """Cuts a byte stream into frames. ``feed`` may be called with any pieces."""

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now. Raises FrameError for a length that is too long or not a shortest varint."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        at = 0
        size_of_buffer = len(buffer)
        while at < size_of_buffer:
            size = shift = 0
            position = at
            while position < size_of_buffer:
                byte = buffer[position]
                position += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
                if shift >= 7 * MAX_LENGTH_BYTES:
                    raise FrameError(f"a frame length has more than {MAX_LENGTH_BYTES} bytes")
            else:
                break
            if byte == 0 and position - at > 1:
                raise FrameError("a frame length is not a shortest varint")
            if size > self._max_bytes:
                raise FrameError(f"a frame of {size} bytes is announced; at most {self._max_bytes} are accepted")
            if position + size > size_of_buffer:
                break
            frames.append(bytes(buffer[position : position + size]))
            at = position + size
        del buffer[:at]
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)
