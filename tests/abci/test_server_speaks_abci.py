"""The ABCI server over its real sockets: framing, order, batching, and which errors stop it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.abci.framing import FrameError, FrameReader, Request, Response, encode_length, frame
from chain.abci.server import AbciServer, AddressError
from chain.codec.registry import message_class
from chain.errors import Halt

CheckTx = message_class("tendermint.abci.ResponseCheckTx")


class Recorder:
    """An application that remembers how it was called and fails on demand."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.raises: dict[str, BaseException] = {}
        self.block = threading.Event()
        self.block.set()

    def check_txs(self, requests: Sequence[Any]) -> list[Any]:
        self._may_raise("check_tx")
        self.batches.append(len(requests))
        return [CheckTx(gas_wanted=len(request.tx)) for request in requests]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(request: Any) -> Any:
            self._may_raise(name)
            if name == "finalize_block":
                self.block.wait(10)
            return message_class("tendermint.abci.Response" + "".join(part.title() for part in name.split("_")))()

        return call

    def _may_raise(self, name: str) -> None:
        if name in self.raises:
            raise self.raises[name]


class Peer:
    """A blocking client that writes requests and reads answers."""

    def __init__(self, address: str) -> None:
        if address.startswith("unix://"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address.removeprefix("unix://"))
        else:
            host, port = address.removeprefix("tcp://").split(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(10)
        self.reader = FrameReader()
        self.frames: list[bytes] = []

    def send(self, *requests: Any) -> None:
        self.socket.sendall(b"".join(frame(request) for request in requests))

    def receive(self) -> Any:
        while not self.frames:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("closed")
            self.frames.extend(self.reader.feed(data))
        return Response.FromString(self.frames.pop(0))

    def ask(self, **request: Any) -> Any:
        self.send(Request(**request))
        return self.receive()


@pytest.fixture(params=["unix", "tcp"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Recorder, Peer, list[BaseException]]]:
    app, fatal = Recorder(), list[BaseException]()
    address = f"unix://{tmp_path}/abci.sock" if request.param == "unix" else "tcp://127.0.0.1:0"
    server = AbciServer(app, address, on_fatal=fatal.append)  # type: ignore[arg-type]
    server.start()
    peer = Peer(server.address)
    yield app, peer, fatal
    peer.socket.close()
    server.stop()


def test_answers_come_in_the_order_of_the_requests(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, _ = served
    sent = [Request(check_tx={"tx": bytes(n)}) for n in range(100)]
    peer.send(Request(echo={"message": "hello"}), *sent, Request(info={}), Request(flush={}))
    assert peer.receive().echo.message == "hello"
    assert [peer.receive().check_tx.gas_wanted for _ in range(100)] == list(range(100))
    assert peer.receive().WhichOneof("value") == "info"
    assert peer.receive().WhichOneof("value") == "flush"
    assert sum(app.batches) == 100


def test_neighbouring_check_txs_are_one_batch(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, _ = served
    peer.send(*(Request(check_tx={"tx": b"x"}) for _ in range(50)), Request(flush={}))
    for _ in range(51):
        peer.receive()
    assert len(app.batches) < 50


def test_a_query_is_answered_while_a_block_is_executed(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, _ = served
    app.block.clear()
    peer.send(Request(finalize_block={"height": 1}))
    address = peer.socket.getpeername()
    other = Peer(f"unix://{address}" if isinstance(address, str) else f"tcp://{address[0]}:{address[1]}")
    assert other.ask(query={"path": "/x"}).WhichOneof("value") == "query"
    other.socket.close()
    app.block.set()
    assert peer.receive().WhichOneof("value") == "finalize_block"


@pytest.mark.parametrize(
    ("call", "field", "expected"),
    [
        ("query", "code", 111222),
        ("check_tx", "code", 111222),
        ("process_proposal", "status", 2),
        ("offer_snapshot", "result", 2),
        ("apply_snapshot_chunk", "result", 2),
        ("load_snapshot_chunk", "chunk", b""),
    ],
)
def test_an_error_in_such_a_call_is_answered_and_the_node_goes_on(
    served: tuple[Recorder, Peer, list[BaseException]], call: str, field: str, expected: Any
) -> None:
    app, peer, fatal = served
    app.raises[call] = ValueError("a bug")
    assert getattr(getattr(peer.ask(**{call: {}}), call), field) == expected
    assert peer.ask(echo={"message": "still here"}).echo.message == "still here"
    assert fatal == []


def test_a_failing_prepare_proposal_gives_the_transactions_back(
    served: tuple[Recorder, Peer, list[BaseException]],
) -> None:
    app, peer, _ = served
    app.raises["prepare_proposal"] = ValueError("a bug")
    answer = peer.ask(prepare_proposal={"txs": [b"abc", b"def", b"ghi"], "max_tx_bytes": 7})
    assert list(answer.prepare_proposal.txs) == [b"abc", b"def"]


@pytest.mark.parametrize("call", ["init_chain", "finalize_block", "commit"])
def test_an_error_in_such_a_call_stops_the_node(served: tuple[Recorder, Peer, list[BaseException]], call: str) -> None:
    app, peer, fatal = served
    app.raises[call] = ValueError("a bug in a block hook")
    assert peer.ask(**{call: {}}).exception.error == "a bug in a block hook"
    with pytest.raises(ConnectionError):
        peer.receive()
    assert [str(error) for error in fatal] == ["a bug in a block hook"]


def test_a_halt_stops_the_node_whatever_the_call(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, fatal = served
    app.raises["finalize_block"] = Halt("halt height 5 reached")
    assert "halt height 5" in peer.ask(finalize_block={}).exception.error
    assert isinstance(fatal[0], Halt)


def test_a_peer_that_does_not_speak_abci_is_cut_off(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    _, peer, fatal = served
    peer.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    with pytest.raises(ConnectionError):
        peer.receive()
    assert fatal == []


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
def test_frames_are_found_however_the_stream_is_cut(messages: list[bytes], piece: int) -> None:
    stream = b"".join(encode_length(len(message)) + message for message in messages)
    reader = FrameReader()
    found = [got for at in range(0, len(stream), piece) for got in reader.feed(stream[at : at + piece])]
    assert found == messages
    assert reader.pending_bytes == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_frame_error(data: bytes) -> None:
    reader = FrameReader(max_bytes=1000)
    try:
        reader.feed(data)
    except FrameError:
        return
    assert reader.pending_bytes <= 1002


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\xff\x01", b"\x80\x00", b"\xff\xff\xff\x7f"])
def test_an_absurd_frame_length_is_refused(length: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader(max_bytes=1 << 20).feed(length)


def test_an_address_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def start(address: str) -> None:
        AbciServer(Recorder(), address, on_fatal=lambda _: None).start()  # type: ignore[arg-type]

    with pytest.raises(AddressError, match="the system allows 107"):
        start(f"unix://{tmp_path}/{'x' * 120}")
    plain = tmp_path / "file"
    plain.write_text("")
    with pytest.raises(AddressError, match="is not a socket"):
        start(f"unix://{plain}")
    with pytest.raises(AddressError, match="unix:///path or tcp://host:port"):
        start("http://localhost")
