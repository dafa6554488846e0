"""Operators on machines of their own: gentxs exchanged as files, a validator behind a sentry, a validator whose key is with a signer."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import config, nodekeys
from chain.codec.registry import message_class
from chain.codec.varint import delimited, uvarint
from chain.config import Home
from chain.light.headers import vote_sign_bytes
from chain.testing.validators import ValidatorKey
from tests.node.operator import FUNDS, KEYRING, STAKE, Operator
from tests.support import ROOT, Devnet, devnet, end, free_ports
from tools.devnet import make


@contextlib.contextmanager
def node(home: Home, base: int, *flags: str) -> Iterator[Devnet]:
    rpc = f"tcp://127.0.0.1:{base}"
    ports = ["--rpc.laddr", rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--grpc.enable", "false", "--api.enable", "false"]
    with (home.root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "chain.cli.main", "start", "--home", str(home.root), *ports, *flags], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield Devnet({"rpc": rpc, "home": str(home.root)}, process)
    finally:
        end(process)


@pytest.mark.timeout(120)
def test_gentxs_from_two_machines_and_a_validator_behind_a_sentry(tmp_path: Path) -> None:
    ports = {name: free_ports(2) for name in ("first", "hidden", "sentry")}
    first, hidden, sentry = (Operator(tmp_path / name) for name in ports)
    for name, one in zip(ports, (first, hidden, sentry), strict=True):
        one.ok("init", name, "--chain-id", "several-1")
        config.update(one.home.comet_config, {"consensus.timeout_commit": "300ms", "p2p.addr_book_strict": False, "p2p.allow_duplicate_ip": True})
    addresses = {}
    for name, one in (("first", first), ("hidden", hidden)):
        one.ok("keys", "add", "val", *KEYRING)
        addresses[name] = one.ok("keys", "show", "val", "-a", *KEYRING)
    for one in (first, hidden):
        for address in addresses.values():
            one.ok("genesis", "add-genesis-account", address, FUNDS)
    # What a validator behind a sentry tells the others is the sentry's address.
    sentry_id = nodekeys.node_id(sentry.home)
    first.ok("genesis", "gentx", "val", STAKE, "--p2p-port", str(ports["first"] + 1), *KEYRING)
    hidden.ok("genesis", "gentx", "val", STAKE, "--node-id", sentry_id, "--ip", "127.0.0.1", "--p2p-port", str(ports["sentry"] + 1), *KEYRING)
    exchanged = tmp_path / "gentxs"
    exchanged.mkdir()
    for name, one in (("first", first), ("hidden", hidden)):
        shutil.copy(one.gentx(), exchanged / f"{name}.json")
    first.ok("genesis", "collect-gentxs", "--gentx-dir", str(exchanged))
    sentry_peer = f"{sentry_id}@127.0.0.1:{ports['sentry'] + 1}"
    assert config.read_comet(first.home)["p2p"]["persistent_peers"] == sentry_peer
    for one in (hidden, sentry):
        shutil.copy(first.home.genesis, one.home.genesis)
    first_peer, hidden_peer = (f"{nodekeys.node_id(one.home)}@127.0.0.1:{ports[name] + 1}" for name, one in (("first", first), ("hidden", hidden)))
    hidden_id = nodekeys.node_id(hidden.home)
    behind = ["--p2p.persistent_peers", sentry_peer, "--p2p.pex=false"]
    before = ["--p2p.persistent_peers", f"{first_peer},{hidden_peer}", "--p2p.private_peer_ids", hidden_id, "--p2p.unconditional_peer_ids", hidden_id]
    with (
        node(first.home, ports["first"]) as one,
        node(hidden.home, ports["hidden"], *behind) as two,
        node(sentry.home, ports["sentry"], *before) as three,
    ):
        # Two equal validators: without the hidden one's votes there is no block.
        for running in (one, two, three):
            running.wait_for(3)
        peers = {name: {peer["node_info"]["id"] for peer in running.rpc("net_info")["peers"]} for name, running in (("first", one), ("hidden", two))}
        assert peers == {"first": {sentry_id}, "hidden": {sentry_id}}
        assert len(one.rpc("validators")["validators"]) == 2


class Signer:
    """A remote signer as small as can be: dials CometBFT's unix socket and signs with a key that the node does not have.

    Messages: CometBFT v0.38 ``privval``, each a field of ``Message`` behind its length.
    """

    def __init__(self, key: ValidatorKey, chain_id: str, path: str) -> None:
        self._key, self._chain_id, self._path = key, chain_id, path
        self.signed: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.is_set():
            with socket.socket(socket.AF_UNIX) as wire, contextlib.suppress(OSError, EOFError):
                wire.connect(self._path)
                wire.settimeout(0.5)
                while not self._ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        size = _varint(wire)
                        wire.sendall(delimited(self._answer(_read(wire, size))))
            self._ended.wait(0.1)

    def _answer(self, request: bytes) -> bytes:
        number, body = request[0] >> 3, _inner(request)
        if number == 1:
            key = message_class("tendermint.crypto.PublicKey")(ed25519=self._key.public_key.raw)
            return _field(2, _field(1, key.SerializeToString()))
        if number == 3:
            vote = message_class("tendermint.types.Vote").FromString(_inner(body))
            block = vote.block_id if vote.block_id.hash else None
            vote.signature = self._key.sign(vote_sign_bytes(self._chain_id, vote.height, vote.round, block, vote.timestamp, vote.type))
            self.signed.append(vote.height)
            return _field(4, _field(1, vote.SerializeToString()))
        if number == 5:
            proposal = message_class("tendermint.types.Proposal").FromString(_inner(body))
            canonical = message_class("tendermint.types.CanonicalProposal")(
                type=proposal.type, height=proposal.height, round=proposal.round, pol_round=proposal.pol_round, chain_id=self._chain_id
            )
            canonical.block_id.hash = proposal.block_id.hash
            canonical.block_id.part_set_header.CopyFrom(
                type(canonical.block_id.part_set_header)(total=proposal.block_id.part_set_header.total, hash=proposal.block_id.part_set_header.hash)
            )
            canonical.timestamp.CopyFrom(proposal.timestamp)
            proposal.signature = self._key.sign(delimited(canonical.SerializeToString()))
            return _field(6, _field(1, proposal.SerializeToString()))
        assert number == 7, "a ping"
        return _field(8, b"")


def _field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + uvarint(len(body)) + body


def _inner(raw: bytes) -> bytes:
    """The first field's bytes."""
    size = shift = 0
    for at in range(1, len(raw)):
        size |= (raw[at] & 0x7F) << shift
        if raw[at] < 0x80:
            return raw[at + 1 : at + 1 + size]
        shift += 7
    return b""


def _varint(wire: socket.socket) -> int:
    size = shift = 0
    while True:
        [byte] = _read(wire, 1)
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size
        shift += 7


def _read(wire: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = wire.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found


@pytest.mark.timeout(120)
def test_a_remote_signer_signs_for_a_node_that_has_no_key(tmp_path: Path) -> None:
    base = free_ports(4)
    net = make(tmp_path, base)
    home = Home(tmp_path / "home")
    key = ValidatorKey.from_file(home.validator_key)
    home.validator_key.unlink()
    home.validator_state.unlink()
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        address = f"{folder}/signer"
        config.update(home.comet_config, {"priv_validator_laddr": f"unix://{address}"})
        signer = Signer(key, net["chain_id"], address)
        try:
            with devnet(tmp_path, ports=base) as running:
                running.wait_for(4)
                [validator] = running.rpc("validators")["validators"]
                assert validator["address"] == key.address.hex().upper()
                assert set(range(1, 4)) <= set(signer.signed)
                signer.close()
                stands = running.height()
                time.sleep(3)
                assert running.height() <= stands + 1, "without its signer the validator signs nothing"
        finally:
            signer.close()
