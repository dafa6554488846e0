"""The ABCI server over its real sockets: framing, order, batching, and which errors stop it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.abci.framing import FrameError, FrameReader, Request, Response, frame
from chain.abci.server import MAX_CONNECTIONS, MAX_WAITING, MAX_WAITING_BYTES, AbciServer, AddressError
from chain.codec.registry import message_class
from chain.codec.varint import delimited
from chain.errors import Halt, UpgradeNeeded

CheckTx = message_class("tendermint.abci.ResponseCheckTx")


class Recorder:
    """An application that remembers how it was called and fails on demand."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.raises: dict[str, BaseException] = {}
        self.began: list[str] = []
        self.ended: list[str] = []
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
            if name in ("finalize_block", "commit"):
                self.began.append(name)
                self.block.wait(10)
                self.ended.append(name)
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
    other = another(peer)
    assert other.ask(query={"path": "/x"}).WhichOneof("value") == "query"
    other.socket.close()
    app.block.set()
    assert peer.receive().WhichOneof("value") == "finalize_block"


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does; raise TimeoutError when it has not after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


def test_a_waiting_call_of_consensus_comes_before_a_waiting_check_tx(tmp_path: Path) -> None:
    app = Recorder()
    server = AbciServer(app, f"unix://{tmp_path}/abci.sock", on_fatal=lambda error: None)  # type: ignore[arg-type]

    def check(requests: Sequence[Any]) -> list[Any]:
        app.began.append("check_tx")
        return [CheckTx() for _ in requests]

    app.check_txs = check  # type: ignore[method-assign]
    server.start()
    peers = [Peer(server.address) for _ in range(3)]
    try:
        app.block.clear()
        for at, kind in enumerate(("finalize_block", "check_tx", "commit")):
            peers[at].send(Request(**{kind: {}}))
            until(lambda waiting=at: bool(app.began) and server._jobs.qsize() == waiting)  # type: ignore[misc]
        app.block.set()
        for peer in peers:
            peer.receive()
        assert app.began == ["finalize_block", "commit", "check_tx"]
    finally:
        app.block.set()
        for peer in peers:
            peer.socket.close()
        server.stop()


GOES_ON = {
    "query": {"code": 111222, "codespace": "undefined"},
    "check_tx": {"code": 111222, "codespace": "undefined"},
    "prepare_proposal": {"txs": []},
    "process_proposal": {"status": 2},
    "extend_vote": {"vote_extension": b""},
    "verify_vote_extension": {"status": 2},
    "list_snapshots": {"snapshots": []},
    "offer_snapshot": {"result": 2},
    "load_snapshot_chunk": {"chunk": b""},
    "apply_snapshot_chunk": {"result": 2},
}
STOPS = ("info", "init_chain", "finalize_block", "commit")
READS = ("query", "list_snapshots", "load_snapshot_chunk")


def test_every_call_of_the_protocol_is_answered_by_its_own_response(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    _, peer, fatal = served
    kinds = [field.name for field in Request.DESCRIPTOR.oneofs_by_name["value"].fields]
    assert set(kinds) == {"echo", "flush", *GOES_ON, *STOPS}
    assert [peer.ask(**{kind: {}}).WhichOneof("value") for kind in kinds] == kinds
    peer.send(*(Request(**{kind: {}}) for kind in kinds * 3))
    assert [peer.receive().WhichOneof("value") for _ in range(3 * len(kinds))] == kinds * 3
    assert fatal == []


@pytest.mark.parametrize("call", GOES_ON)
def test_an_error_in_such_a_call_is_answered_and_the_node_goes_on(served: tuple[Recorder, Peer, list[BaseException]], call: str) -> None:
    app, peer, fatal = served
    app.raises[call] = ValueError("a bug")
    answer = getattr(peer.ask(**{call: {}}), call)
    assert {name: list(value) if name in ("txs", "snapshots") else value for name in GOES_ON[call] for value in [getattr(answer, name)]} == GOES_ON[
        call
    ]
    assert peer.ask(echo={"message": "still here"}).echo.message == "still here"
    assert fatal == []


@pytest.mark.parametrize("call", [*GOES_ON, *STOPS])
def test_an_error_of_the_machine_stops_the_node_unless_the_call_only_reads(served: tuple[Recorder, Peer, list[BaseException]], call: str) -> None:
    app, peer, fatal = served
    app.raises[call] = OSError("the disk is gone")
    answer = peer.ask(**{call: {}})
    assert answer.WhichOneof("value") == (call if call in READS else "exception")
    assert len(fatal) == (0 if call in READS else 1)


def test_a_failing_prepare_proposal_gives_back_what_fits_as_cometbft_counts_it(
    served: tuple[Recorder, Peer, list[BaseException]],
) -> None:
    app, peer, _ = served
    app.raises["prepare_proposal"] = ValueError("a bug")
    for limit, fits in ((10, 2), (9, 1), (4, 0)):
        answer = peer.ask(prepare_proposal={"txs": [b"abc", b"def", b"ghi"], "max_tx_bytes": limit})
        assert list(answer.prepare_proposal.txs) == [b"abc", b"def", b"ghi"][:fits]
        assert answer.prepare_proposal.ByteSize() <= limit


@pytest.mark.parametrize("call", STOPS)
def test_an_error_in_such_a_call_stops_the_node(served: tuple[Recorder, Peer, list[BaseException]], call: str) -> None:
    app, peer, fatal = served
    app.raises[call] = ValueError("a bug in a block hook")
    assert peer.ask(**{call: {}}).exception.error == "a bug in a block hook"
    with pytest.raises(ConnectionError):
        peer.receive()
    assert [str(error) for error in fatal] == ["a bug in a block hook"]


@pytest.mark.parametrize("call", ["check_tx", "finalize_block"])
def test_a_node_that_is_stopping_executes_nothing_more(served: tuple[Recorder, Peer, list[BaseException]], call: str) -> None:
    app, peer, fatal = served
    app.raises["commit"] = ValueError("a bug")
    other = another(peer)
    assert peer.ask(commit={}).exception.error == "a bug"
    assert "the node is stopping after an earlier error" in other.ask(**{call: {}}).exception.error
    other.socket.close()
    assert (app.batches, app.began) == ([], [])
    assert len(fatal) == 1, "it is told once"


def test_a_halt_stops_the_node_whatever_the_call(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, fatal = served
    app.raises["finalize_block"] = Halt("halt height 5 reached")
    assert "halt height 5" in peer.ask(finalize_block={}).exception.error
    assert isinstance(fatal[0], Halt)


def test_a_block_of_another_binary_gets_no_answer_while_every_other_connection_is_served(
    served: tuple[Recorder, Peer, list[BaseException]],
) -> None:
    app, peer, fatal = served
    app.raises["finalize_block"] = UpgradeNeeded("upgrade v2 needed")
    peer.send(Request(finalize_block={}), Request(flush={}))
    peer.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        peer.receive()
    other = another(peer)
    assert other.ask(query={"path": "/x"}).WhichOneof("value") == "query"
    assert other.ask(check_tx={"tx": b"x"}).WhichOneof("value") == "check_tx"
    assert other.ask(echo={"message": "still there"}).echo.message == "still there"
    other.socket.close()
    assert fatal == []


def test_a_peer_that_does_not_speak_abci_is_cut_off(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    _, peer, fatal = served
    peer.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    with pytest.raises(ConnectionError):
        peer.receive()
    assert fatal == []


def another(peer: Peer) -> Peer:
    address = peer.socket.getpeername()
    return Peer(f"unix://{address}" if isinstance(address, str) else f"tcp://{address[0]}:{address[1]}")


def test_a_peer_that_sends_faster_than_it_is_answered_is_not_read_from(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, _ = served
    app.block.clear()
    peer.send(Request(finalize_block={"height": 1}))
    peer.socket.setblocking(False)
    piece = b"".join(frame(Request(check_tx={"tx": bytes(1000)})) for _ in range(100))
    sent, left = 0, piece
    stuck_since = time.monotonic()
    while time.monotonic() - stuck_since < 1 and sent < 400 << 20:
        try:
            count = peer.socket.send(left)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        sent, left, stuck_since = sent + count, left[count:] or piece, time.monotonic()
    assert sent < MAX_WAITING * 1100 + MAX_WAITING_BYTES, "the server stopped reading"
    peer.socket.settimeout(10)
    app.block.set()
    rest = threading.Thread(target=peer.socket.sendall, args=(left,) if left != piece else (b"",))
    rest.start()
    assert peer.receive().WhichOneof("value") == "finalize_block"
    size = len(frame(Request(check_tx={"tx": bytes(1000)})))
    for _ in range(-(-sent // size)):
        assert peer.receive().check_tx.gas_wanted == 1000
    rest.join()


def test_a_peer_that_does_not_read_its_answers_is_not_worked_for(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, _ = served
    calls: list[int] = []
    large = bytes(1 << 18)

    def query(request: Any) -> Any:
        calls.append(1)
        return message_class("tendermint.abci.ResponseQuery")(value=large)

    app.query = query  # type: ignore[attr-defined]
    for _ in range(40):
        peer.send(*(Request(query={}),) * 10)
    quiet_since, before = time.monotonic(), -1
    while time.monotonic() - quiet_since < 1:
        if len(calls) != before:
            before, quiet_since = len(calls), time.monotonic()
        time.sleep(0.02)
    assert len(calls) < 200, "of 400 queries"
    other = another(peer)
    assert other.ask(echo={"message": "served meanwhile"}).echo.message == "served meanwhile"
    other.socket.close()
    for _ in range(400):
        assert len(peer.receive().query.value) == 1 << 18


def test_a_frame_cut_off_by_a_closed_connection_harms_nobody(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    _, peer, fatal = served
    whole = frame(Request(query={"path": "/x" * 100}))
    for cut in (1, 2, len(whole) // 2, len(whole) - 1):
        other = another(peer)
        other.socket.sendall(whole[:cut])
        other.socket.close()
    assert peer.ask(query={}).WhichOneof("value") == "query"
    assert fatal == []


def test_a_connection_lost_during_a_block_ends_its_waiting_calls_and_the_next_peer_begins_anew(
    served: tuple[Recorder, Peer, list[BaseException]],
) -> None:
    app, peer, fatal = served
    app.block.clear()
    first, second = another(peer), another(peer)
    first.send(Request(finalize_block={"height": 7}), Request(flush={}))
    while not app.began:
        time.sleep(0.01)
    second.send(Request(commit={}))
    time.sleep(0.1)
    for lost in (first, second):
        lost.socket.close()
    time.sleep(0.2)
    app.block.set()
    assert peer.ask(finalize_block={"height": 7}).WhichOneof("value") == "finalize_block"
    assert app.began == ["finalize_block", "finalize_block"], "the commit of a peer that is gone was not begun"
    assert fatal == []


def test_a_second_set_of_four_connections_is_served_beside_the_first(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    _, peer, _ = served
    sets = [[another(peer) for _ in range(4)] for _ in range(2)]
    for at in range(20):
        for one in (connection for connections in sets for connection in connections):
            one.send(Request(echo={"message": f"{at}"}), Request(check_tx={"tx": bytes(at)}), Request(flush={}))
    for one in (connection for connections in sets for connection in connections):
        for at in range(20):
            assert (one.receive().echo.message, one.receive().check_tx.gas_wanted) == (f"{at}", at)
            assert one.receive().WhichOneof("value") == "flush"
        one.socket.close()


def test_connections_are_bounded(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    _, peer, _ = served
    peer.ask(flush={})
    others = [another(peer) for _ in range(MAX_CONNECTIONS - 1)]
    assert all(one.ask(echo={"message": "x"}).echo.message == "x" for one in others)
    refused = another(peer)
    with pytest.raises(ConnectionError):
        refused.ask(echo={"message": "x"})
    for one in [refused, *others]:
        one.socket.close()
    until = time.monotonic() + 5
    while True:
        again = another(peer)
        try:
            assert again.ask(flush={}).WhichOneof("value") == "flush"
            break
        except ConnectionError:
            assert time.monotonic() < until, "closed connections still count"
        finally:
            again.socket.close()


def test_stop_lets_the_running_call_end(tmp_path: Path) -> None:
    app = Recorder()
    server = AbciServer(app, f"unix://{tmp_path}/s", on_fatal=lambda _: None)  # type: ignore[arg-type]
    server.start()
    peer = Peer(server.address)
    app.block.clear()
    peer.send(Request(finalize_block={"height": 1}))
    while not app.began:
        time.sleep(0.01)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    stopping.join(0.3)
    assert stopping.is_alive(), "stop waits for the block"
    assert app.ended == []
    app.block.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert app.ended == ["finalize_block"]
    assert not (tmp_path / "s").exists()
    with pytest.raises(ConnectionError):
        peer.receive()
    peer.socket.close()


def test_an_error_whose_text_is_no_unicode_is_told_all_the_same(served: tuple[Recorder, Peer, list[BaseException]]) -> None:
    app, peer, fatal = served
    app.raises["commit"] = ValueError("a path \udcff")
    assert peer.ask(commit={}).exception.error == "a path ?"
    assert len(fatal) == 1


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
def test_frames_are_found_however_the_stream_is_cut(messages: list[bytes], piece: int) -> None:
    stream = b"".join(delimited(message) for message in messages)
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
    with pytest.raises(AddressError, match="names no file"):
        start("unix://")
    plain = tmp_path / "file"
    plain.write_text("")
    with pytest.raises(AddressError, match="is not a socket"):
        start(f"unix://{plain}")
    with pytest.raises(AddressError, match="unix:///path or tcp://host:port"):
        start("http://localhost")
