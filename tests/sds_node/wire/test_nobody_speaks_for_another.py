"""Who is at the other end: proofs of keys, a man in the middle, replays, wrong chains, wrong versions."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from chain.crypto.keys import Ed25519PublicKey as ChainKey
from sds_node.wire import identity as module
from sds_node.wire.connection import Connection, Phase
from sds_node.wire.errors import HandshakeFailed, Lost, NoCommonVersion, ProtocolViolation, WireError, WrongChain, WrongPeer
from sds_node.wire.frames import Hello, Kind, encode_hello
from sds_node.wire.identity import ALPN, Identity, certificate_of, contexts, proven_key
from sds_node.wire.limits import Limits
from sds_node.wire.node import Node, Server, dial
from sds_node.wire.peer import Direct, Peer
from sds_node.wire.stream import Stream
from tests.sds_node.wire.support import CHAIN, HANDLERS, Raw, connect, pair, proxy, raw

CLOSED_WITHOUT_A_WORD = (-1, "")


def test_an_address_is_the_chains_address_of_the_key() -> None:
    identity = Identity(bytes(range(32)))
    assert identity.address == ChainKey(identity.public_key).address
    assert len(identity.address) == 20
    assert identity.seed.hex() not in repr(identity)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        Identity(bytes(31))


def test_the_key_touches_the_disk_encrypted_with_mode_0600_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    identity, seen = Identity.ephemeral(), []
    der = Ed25519PrivateKey.from_private_bytes(identity.seed).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, path: str, **more: Any) -> None:
        seen.append((stat.S_IMODE(os.stat(path).st_mode), stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), Path(path).read_bytes()))
        load(self, path, **more)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    contexts(identity)
    assert [(file, folder) for file, folder, _ in seen] == [(0o600, 0o700)] * 2
    assert all(b"ENCRYPTED PRIVATE KEY" in data and der not in data and identity.seed not in data for _, _, data in seen)
    assert list(tmp_path.iterdir()) == []


def _shaken(dialing: ssl.SSLContext, accepting: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = dialing.wrap_bio(down, up, server_side=False), accepting.wrap_bio(up, down, server_side=True)
    left = [client, server]
    for _ in range(6):
        for one in list(left):
            try:
                one.do_handshake()
                left.remove(one)
            except ssl.SSLWantReadError:
                pass
    assert left == []
    return client, server


def test_both_sides_of_a_handshake_prove_their_keys() -> None:
    one, two = Identity.ephemeral(), Identity.ephemeral()
    client, server = _shaken(contexts(one)[0], contexts(two)[1])
    assert proven_key(client) == two.public_key
    assert proven_key(server) == one.public_key


class _Session:
    """What a finished TLS session tells."""

    def __init__(self, der: bytes | None, version: str = "TLSv1.3", alpn: str | None = ALPN) -> None:
        self._der, self._version, self._alpn = der, version, alpn

    def version(self) -> str:
        return self._version

    def selected_alpn_protocol(self) -> str | None:
        return self._alpn

    def getpeercert(self, binary_form: bool) -> bytes | None:
        return self._der


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def _foreign(key: Any) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM of a key of another kind, vouched for by nobody as everybody can."""
    authority, top = module._nobody()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another kind")])
    builder = module._dated(x509.CertificateBuilder().subject_name(name).issuer_name(top.subject).public_key(key.public_key()).serial_number(7))
    return builder.sign(authority, None).public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "point", ["01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"]
)
def test_a_key_of_small_order_proves_nothing(point: str) -> None:
    pem = certificate_of(Ed25519PublicKey.from_public_bytes(bytes.fromhex(point)))
    with pytest.raises(HandshakeFailed, match="no point of the prime group"):
        proven_key(_Session(_der(pem)))  # type: ignore[arg-type]


def test_another_version_protocol_certificate_or_kind_of_key_is_refused() -> None:
    good = _der(certificate_of(Ed25519PrivateKey.generate().public_key()))
    other = _der(_foreign(ec.generate_private_key(ec.SECP256R1()))[0])
    assert len(proven_key(_Session(good))) == 32  # type: ignore[arg-type]
    for session in (
        _Session(good, version="TLSv1.2"),
        _Session(good, alpn=None),
        _Session(good, alpn="h2"),
        _Session(None),
        _Session(b"no DER"),
        _Session(other),
    ):
        with pytest.raises(HandshakeFailed):
            proven_key(session)  # type: ignore[arg-type]


async def _words(peer: Raw) -> tuple[int, str]:
    try:
        return await peer.closed_with()
    finally:
        peer.writer.transport.abort()


@pytest.mark.asyncio
async def test_a_caller_without_a_certificate_or_with_one_of_another_kind_is_turned_away(tmp_path: Path) -> None:
    bare, foreign, own = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(3))
    for context in (bare, foreign, own):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([ALPN])
    certificate, key = _foreign(ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "foreign.pem").write_bytes(certificate + key)
    foreign.load_cert_chain(tmp_path / "foreign.pem")
    # A certificate that its own key signed, not everybody's.
    mine = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    builder = module._dated(x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(mine.public_key()).serial_number(1))
    pem = builder.sign(mine, SHA256()).public_bytes(Encoding.PEM)
    (tmp_path / "own.pem").write_bytes(pem + mine.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    own.load_cert_chain(tmp_path / "own.pem")
    async with pair() as two:
        for context in (bare, foreign, own):
            peer = await connect(two.host, two.port, context=context)
            await peer.send(0, Kind.HELLO, encode_hello(Hello(CHAIN)))
            code, _ = await _words(peer)
            assert code in (-1, HandshakeFailed.code)
            assert not [kind for _, kind, _, _ in peer.seen if kind == Kind.HELLO]
        assert two.callee.accounts == {}
        assert await two.peer.ask("who") == two.caller.address


@pytest.mark.asyncio
async def test_tls_1_2_is_refused() -> None:
    context = contexts(Identity.ephemeral())[0]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with pair() as two:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(two.host, two.port, context=context)


@pytest.mark.asyncio
async def test_a_man_in_the_middle_with_keys_of_his_own_is_refused_by_the_caller_and_cannot_be_the_caller() -> None:
    called: list[bytes] = []

    async def pay(stream: Stream, connection: Connection) -> None:
        called.append(connection.remote.address)

    async with pair({"pay": pay}) as two:
        # He ends TLS on both sides: to the caller with one key, to the callee with another; frames he would pass on.
        mallory = Node(Identity.ephemeral(), CHAIN, HANDLERS)
        middle = Server(mallory)
        host, port = await middle.listen()
        victim = Peer(two.caller, two.callee.address, [Direct(host, port)])
        with pytest.raises(WrongPeer, match=mallory.address.hex()):
            await victim.ask("pay")
        # What he asks the callee himself is asked in his own name.
        own = Peer(mallory, two.callee.address, [Direct(two.host, two.port)])
        await own.ask("pay")
        assert called == [mallory.address]
        assert two.callee.connections_of(two.caller.address) == []
        await own.close()
        await middle.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("up", [True, False])
async def test_a_bit_changed_on_the_way_ends_the_connection(up: bool) -> None:
    spoil = asyncio.Event()

    def tap(data: bytes, goes_up: bool) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if spoil.is_set() and goes_up is up else data

    async with pair() as two, proxy(two.port, tap) as (port, _):
        peer = Peer(two.caller, two.callee.address, [Direct("127.0.0.1", port)])
        assert await peer.ask("echo", b"clean") == b"clean"
        spoil.set()
        with pytest.raises((ProtocolViolation, Lost)):
            await peer.ask("echo", b"dirty")
        await peer.close()


@pytest.mark.asyncio
async def test_a_recorded_session_replayed_does_nothing() -> None:
    done: list[bytes] = []

    async def pay(stream: Stream, _: Connection) -> None:
        done.append(stream.head)

    recorded: list[bytes] = []

    def tap(data: bytes, up: bool) -> bytes:
        if up:
            recorded.append(data)
        return data

    async with pair({"pay": pay}) as two, proxy(two.port, tap) as (port, _):
        peer = Peer(two.caller, two.callee.address, [Direct("127.0.0.1", port)])
        await peer.ask("pay", b"once")
        await peer.close()
        reader, writer = await asyncio.open_connection(two.host, two.port)
        writer.write(b"".join(recorded))
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        writer.transport.abort()
        assert done == [b"once"]


@pytest.mark.asyncio
async def test_a_node_of_another_chain_is_told_why_and_closed_on_both_sides() -> None:
    async with pair() as two:
        other = Node(Identity.ephemeral(), "other-7")
        with pytest.raises(WrongChain, match=f"{CHAIN}.*other-7|other-7.*{CHAIN}"):
            await dial(other, two.host, two.port, two.callee.address)
        peer = await connect(two.host, two.port)
        await peer.send(0, Kind.HELLO, encode_hello(Hello("other-7")))
        code, text = await _words(peer)
        assert code == WrongChain.code
        assert "other-7" in text
        assert CHAIN in text
        assert two.callee.connections == set()
        await other.close()


@pytest.mark.asyncio
async def test_without_a_common_version_both_are_told_why_and_with_one_the_highest_is_spoken() -> None:
    async with pair() as two:
        newer = Node(Identity.ephemeral(), CHAIN, versions=(2, 3))
        with pytest.raises(NoCommonVersion, match="2 to 3"):
            await dial(newer, two.host, two.port, two.callee.address)
        both = Node(Identity.ephemeral(), CHAIN, versions=(1, 3))
        connection = await dial(both, two.host, two.port, two.callee.address)
        assert connection.remote.version == 1
        connection.close()
        await both.close()
        await newer.close()


@pytest.mark.asyncio
async def test_each_side_learns_what_the_other_says_of_itself() -> None:
    callee = Node(Identity.ephemeral(), CHAIN, HANDLERS, software="stratos 9", capabilities=("relay", "reach"))
    server, caller = Server(callee), Node(Identity.ephemeral(), CHAIN, limits=Limits(streams_per_connection=7))
    host, port = await server.listen()
    peer = Peer(caller, callee.address, [Direct(host, port, source_host="127.0.0.9")])
    ours = await peer.connect()
    assert ours.remote.hello.software == "stratos 9"
    assert ours.remote.hello.capabilities == ("relay", "reach")
    assert ours.remote.public_key == callee.identity.public_key
    await peer.ask("who")
    theirs = callee.connections_of(caller.address)[0]
    assert theirs.remote.hello.streams == 7
    assert theirs.remote.host == "127.0.0.9"
    await peer.close()
    await server.close()


@pytest.mark.asyncio
async def test_a_port_where_nobody_listens_or_nobody_speaks_tls_is_a_failed_handshake() -> None:
    node = Node(Identity.ephemeral(), CHAIN, limits=Limits(handshake_s=0.2))

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    for answer in (mute, http):
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(HandshakeFailed):
            await dial(node, "127.0.0.1", port, node.address)
        listener.close()
        await listener.wait_closed()
    with pytest.raises(HandshakeFailed, match="no TCP connection"):
        await dial(node, "127.0.0.1", port, node.address)
    await node.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("host", "port"), [("a" * 64 + ".example.org", 18_081), ("a.." + "b", 18_081), ("x\0y", 18_081), ("\ud800", 18_081), ("127.0.0.1", 70_000)]
)
async def test_a_host_that_is_no_name_is_a_failed_handshake(host: str, port: int) -> None:
    node = Node(Identity.ephemeral(), CHAIN)
    with pytest.raises(HandshakeFailed, match="no TCP connection"):
        await Peer(node, node.address, [Direct(host, port)]).ask("who")
    await node.close()


@pytest.mark.asyncio
async def test_a_connection_that_is_not_open_says_who_nobody_is() -> None:
    async with pair() as two, raw(two) as peer:
        ours = await two.peer.connect()
        assert ours.phase is Phase.OPEN
        ours.close()
        with pytest.raises(WireError):
            await ours.call("echo")
        await peer.open(1, "echo", b"x", 1)
        assert await peer.read_until(Kind.STATUS) is not None
