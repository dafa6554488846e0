"""Bytes of frames: round trips, bounds, and vectors for other implementations."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sds_node.wire.errors import BY_CODE, CallFailed, InternalFailure, ProtocolViolation, Refused, answer_of, bounded_text, error_of
from sds_node.wire.frames import (
    END,
    HEADER,
    MAX_HELLO_BYTES,
    MAX_PAYLOAD_BYTES,
    Hello,
    Kind,
    check_header,
    decode_hello,
    decode_open,
    decode_status,
    encode_hello,
    encode_open,
    encode_status,
    frame,
)

NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,31}\Z")


def test_the_vectors_of_the_readme() -> None:
    hello = Hello("stratos-1", "stratos 0.1", ("reach",))
    assert frame(Kind.HELLO, 0, encode_hello(hello)).hex() == (
        "0000000001000000003573747261746f7377000100010000010000400000040000000973747261746f732d310b73747261746f7320302e3101057265616368"
    )
    assert frame(Kind.OPEN, 1, encode_open("share.get", b"\x0a\x01x"), END).hex() == "0000000102010000000d0973686172652e6765740a0178"
    assert frame(Kind.DATA, 1, b"abc").hex() == "00000001030000000003616263"
    assert frame(Kind.WINDOW, 0, (1 << 20).to_bytes(4, "big")).hex() == "0000000004000000000400100000"
    assert frame(Kind.STATUS, 1, encode_status(4, "busy")).hex() == "00000001050000000006000462757379"


@given(
    chain=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"),
    software=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=128),
    names=st.lists(NAMES, max_size=32),
    versions=st.tuples(st.integers(1, 65535), st.integers(1, 65535)),
    tail=st.binary(max_size=64),
)
def test_a_hello_decodes_to_itself_and_what_a_later_version_adds_is_skipped(
    chain: str, software: str, names: list[str], versions: tuple[int, int], tail: bytes
) -> None:
    hello = Hello(chain, software, tuple(names), min(versions), max(versions))
    payload = encode_hello(hello)
    assert decode_hello(payload) == hello
    assert decode_hello(payload + tail) == hello
    assert len(payload) <= MAX_HELLO_BYTES


@given(method=st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,63}\Z"), head=st.binary(max_size=200))
def test_an_open_decodes_to_itself(method: str, head: bytes) -> None:
    assert decode_open(encode_open(method, head)) == (method, head)


@given(code=st.integers(0, 65535), text=st.text())
def test_a_status_keeps_its_code_and_its_text_up_to_1024_bytes(code: int, text: str) -> None:
    got, read = decode_status(encode_status(code, text))
    assert got == code
    assert read == bounded_text(text)
    assert len(read.encode()) <= 1024
    assert read.isprintable()


@given(st.binary(max_size=300))
def test_garbage_decodes_or_is_a_violation_and_nothing_else(data: bytes) -> None:
    for decode in (decode_hello, decode_open):
        with contextlib.suppress(ProtocolViolation):
            decode(data)
    decode_status(data)


@given(st.data())
def test_a_hello_cut_anywhere_is_a_violation(data: st.DataObject) -> None:
    payload = encode_hello(Hello("chain", "software", ("one", "two")))
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ProtocolViolation):
        decode_hello(payload[:cut])


@given(stream=st.integers(0, 2**32 - 1), kind=st.integers(0, 255), flags=st.integers(0, 255), length=st.integers(0, 2**32 - 1))
def test_a_header_passes_only_within_the_table(stream: int, kind: int, flags: int, length: int) -> None:
    try:
        check_header(stream, kind, flags, length)
    except ProtocolViolation:
        return
    assert 1 <= kind <= 10
    assert length <= MAX_PAYLOAD_BYTES
    assert stream < 2**31
    assert flags in (0, END)


@pytest.mark.parametrize(
    ("stream", "kind", "flags", "length"),
    [
        (0, 0, 0, 0), (0, 11, 0, 0), (1, Kind.HELLO, 0, 60), (0, Kind.HELLO, 0, 4097), (0, Kind.OPEN, 0, 10), (1, Kind.OPEN, 0, 1), (1, Kind.OPEN, 2, 10),
        (1, Kind.OPEN, 0, 65 + 65536 + 1), (0, Kind.DATA, 0, 1), (1, Kind.DATA, 0, 0), (1, Kind.DATA, 0, (1 << 20) + 1), (1, Kind.DATA, 3, 1),
        (1, Kind.WINDOW, 0, 3), (1, Kind.WINDOW, 1, 4), (0, Kind.STATUS, 0, 2), (1, Kind.STATUS, 0, 1), (1, Kind.STATUS, 0, 1027), (0, Kind.RESET, 0, 2),
        (1, Kind.PING, 0, 8), (0, Kind.PING, 0, 7), (0, Kind.PONG, 0, 9), (1, Kind.DRAIN, 0, 4), (0, Kind.DRAIN, 0, 5), (1, Kind.CLOSE, 0, 2),
        (0, Kind.CLOSE, 0, 0), (1 << 31, Kind.DATA, 0, 1),
    ],
)  # fmt: skip
def test_a_header_outside_the_table_is_a_violation(stream: int, kind: int, flags: int, length: int) -> None:
    with pytest.raises(ProtocolViolation):
        check_header(stream, kind, flags, length)


def test_the_largest_frame_of_each_kind_passes() -> None:
    for stream, kind, flags, length in (
        (1, Kind.DATA, 0, 1 << 20),
        (1, Kind.DATA, END, 0),
        (1, Kind.OPEN, END, 65 + 65536),
        (0, Kind.HELLO, 0, 4096),
    ):
        check_header(stream, kind, flags, length)
    assert HEADER.size == 10


@pytest.mark.parametrize(
    "hello",
    [Hello(""), Hello("a b"), Hello("x" * 65), Hello("c", "s" * 129), Hello("c", "s", ("A",)), Hello("c", "s", ("a",) * 33), Hello("c", "s", (), 2, 1), Hello("c", "s", (), 0, 1)],
)  # fmt: skip
def test_a_hello_of_ours_out_of_bounds_is_not_encoded(hello: Hello) -> None:
    with pytest.raises(ValueError):
        encode_hello(hello)


@pytest.mark.parametrize("windows", [(1023, 1 << 20), (1 << 20, 1 << 19), (1 << 20, 1 << 31)])
def test_windows_out_of_bounds_are_a_violation(windows: tuple[int, int]) -> None:
    payload = encode_hello(Hello("c", stream_window_bytes=windows[0], connection_window_bytes=windows[1]))
    with pytest.raises(ProtocolViolation, match="out of bounds"):
        decode_hello(payload)


def test_every_code_has_one_class_and_a_later_code_is_named() -> None:
    for code, cls in BY_CODE.items():
        error = error_of(code, "text")
        assert type(error) is cls
        assert error.code == code
    assert isinstance(error_of(1000, ""), Refused)
    assert isinstance(error_of(99, ""), InternalFailure)
    assert "99" in error_of(99, "").text


def test_the_failure_of_another_connection_is_told_as_a_call_that_failed() -> None:
    for code in BY_CODE:
        told = error_of(*answer_of(error_of(code, "x")))
        assert isinstance(told, CallFailed)


@pytest.mark.parametrize("code", [0, 999, 65536])
def test_a_methods_own_code_is_1000_to_65535(code: int) -> None:
    with pytest.raises(ValueError, match="1000 to 65535"):
        Refused(code)
