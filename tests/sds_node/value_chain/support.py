"""A chain of its own for tests of what follows it: one validator, which is the meta node, short epochs, quick blocks, funded accounts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nacl.signing

from chain import metakeys
from chain.cli.testnet import Account, Node, make_network, short_periods
from chain.codec.registry import message_class
from chain.comet import ensure_comet
from chain.config import Home
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, PrivateKey, public_key_to_any
from chain.metakeys import MetaKeys
from tests.support import ROOT, Devnet, end, free_ports

CHAIN_ID = "followed-1"
STOS = 10**18
NAMES = (("operator", "eth_secp256k1"), ("alice", "eth_secp256k1"), ("bob", "secp256k1"), ("carol", "secp256k1"))


@dataclass
class Chain:
    """A chain and its one process, which can be stopped and started."""

    folder: Path
    home: Home
    rpc: str
    accounts: dict[str, Account]
    process: subprocess.Popen[bytes] | None = None

    @property
    def meta(self) -> MetaKeys:
        """The validator's keys as a meta node; its owner is ``operator``."""
        return metakeys.read(metakeys.path_in(self.home))

    def key(self, name: str) -> PrivateKey:
        return self.accounts[name].key

    def wallet(self, name: str) -> bytes:
        return self.key(name).public_key.address

    def start(self) -> None:
        with (self.folder / "node.log").open("ab") as log:
            command = [sys.executable, "-m", "chain.cli.main", "start", "--home", str(self.home.root)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        Devnet({"rpc": self.rpc}, self.process).wait_for(1, 120)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None


@contextlib.contextmanager
def running(folder: Path, **params: Any) -> Iterator[Chain]:
    """A chain in ``folder``, at its first block at least; ``params`` with ``__`` for the dot: ``pot__epoch_duration_s="3"``."""
    ensure_comet()
    base = free_ports(4)
    ports = dict(zip(("rpc", "p2p", "grpc", "rest"), range(base, base + 4), strict=True))
    accounts = [Account.new(*one) for one in NAMES]
    home = Home(folder / "chain")
    changed = {name.replace("__", "."): value for name, value in params.items()}
    make_network(
        [Node("followed", home, ports, accounts[0])],
        CHAIN_ID,
        accounts,
        params={**short_periods(), **changed},
        comet={"consensus.timeout_commit": "200ms"},
        app={"api.enable": False},
    )
    chain = Chain(folder, home, f"http://127.0.0.1:{base}", {one.name: one for one in accounts})
    try:
        chain.start()
        yield chain
    finally:
        chain.stop()


# --- messages -------------------------------------------------------------------------------------------------------------------------


def send_of(sender: PrivateKey, recipient: bytes, amount_wei: int) -> Any:
    return message_class("cosmos.bank.v1beta1.MsgSend")(
        from_address=bech32.encode(sender.public_key.address),
        to_address=bech32.encode(recipient),
        amount=[{"denom": "wei", "amount": str(amount_wei)}],
    )


def prepay_of(sender: PrivateKey, beneficiary: bytes, amount_wei: int) -> Any:
    return message_class("stratos.sds.v1.MsgPrepay")(
        sender=bech32.encode(sender.public_key.address),
        beneficiary=bech32.encode(beneficiary),
        amount=[{"denom": "wei", "amount": str(amount_wei)}],
    )


def network_key(number: int) -> Ed25519PublicKey:
    """The network key of the test's resource node ``number``."""
    return Ed25519PublicKey(bytes(nacl.signing.SigningKey(number.to_bytes(32, "big")).verify_key))


def resource_node_of(owner: PrivateKey, number: int, deposit_wei: int, beneficiary: bytes = b"") -> Any:
    public = network_key(number)
    return message_class("stratos.register.v1.MsgCreateResourceNode")(
        network_address=bech32.encode(public.address, bech32.NODE),
        pubkey=public_key_to_any(public),
        value={"denom": "wei", "amount": str(deposit_wei)},
        owner_address=bech32.encode(owner.public_key.address),
        beneficiary_address=bech32.encode(beneficiary) if beneficiary else "",
        description={"moniker": f"node {number}"},
        node_type=4,
    )


def effective_of(chain: Chain, number: int, effective_wei: int) -> Any:
    """What the meta node says of a resource node's deposit: alone it decides."""
    return message_class("stratos.register.v1.MsgUpdateEffectiveDeposit")(
        reporters=[chain.meta.network_address],
        reporter_owner=[bech32.encode(chain.wallet("operator"))],
        network_address=bech32.encode(network_key(number).address, bech32.NODE),
        effective_tokens=str(effective_wei),
    )
