"""simd and our node side by side over the same keys, coins and transactions, so that answers can be compared field by field.

Only the bech32 prefixes differ; ``neutral`` writes addresses of both as their bytes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chain import config, nodekeys
from chain.api.comet import CometClient
from chain.cli.genesis import modules, tx_message
from chain.codec.canonical import encode
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto import hd
from chain.crypto.keys import public_key_to_any
from chain.errors import InvalidAddress
from chain.tx import signing
from chain.tx.build import Signer, build_tx
from chain.tx.signing import DIRECT, LEGACY_AMINO_JSON
from genesis import build, document
from tests.interop import peers
from tests.support import ROOT, ask_until, end, free_ports

CHAIN_ID = "pair-1"
STAKE = 10**18
COINS = (("abc", 1_000_000), ("def", 2_000), ("wei", 10**24), ("xyz", 77))
NAMES = ("val", "a", "b", "c", "d")
WORDS = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
KEYS = {name: hd.derive(WORDS, f"m/44'/606'/0'/0/{at}", "secp256k1") for at, name in enumerate(NAMES)}
SEND_ENABLED = [{"denom": "def", "enabled": False}, {"denom": "xyz", "enabled": True}]
METADATA = [
    {
        "description": "a coin",
        "denom_units": [{"denom": "abc", "exponent": 0, "aliases": ["unit"]}, {"denom": "kabc", "exponent": 3, "aliases": []}],
        "base": "abc",
        "display": "kabc",
        "name": "Abc",
        "symbol": "ABC",
        "uri": "",
        "uri_hash": "",
    }
]
_ADDRESS = re.compile(r"\b(?:cosmos|st)(valoper|valcons|)1[02-9ac-hj-np-z]{38,58}\b")
_PREFIX = re.compile(r"\b(?:cosmos|st)(valoper|valcons|)\b")


def neutral(text: str) -> str:
    """``text`` with addresses as ``<kind hex>`` and prefixes that stand alone as ``<prefix kind>``."""

    def address(match: re.Match[str]) -> str:
        try:
            return f"<{match[1]} {bech32.decode_any(match[0])[1].hex()}>"
        except InvalidAddress:
            return match[0]

    return _PREFIX.sub(r"<prefix \1>", _ADDRESS.sub(address, text))


@dataclass
class Side:
    """One of the two running nodes, and what was sent to it: by name of the transaction its bytes, hash and height."""

    name: str
    prefix: str
    home: Path
    base: int
    raw: dict[str, bytes] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)

    @property
    def rpc(self) -> str:
        return f"tcp://127.0.0.1:{self.base}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.base + 2}"

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.base + 3}"

    def address(self, name: str, kind: str = "") -> str:
        return bech32.encode(KEYS[name].public_key.address, self.prefix + kind)

    def hash(self, name: str) -> str:
        return hashlib.sha256(self.raw[name]).hexdigest().upper()

    def tx(self, sender: str, to: str, amount: int, sequence: int, *, denom: str = "abc", memo: str = "", gas: int = 200_000) -> bytes:
        """A signed MsgSend with this network's addresses."""
        message = message_class("cosmos.bank.v1beta1.MsgSend")(
            from_address=self.address(sender), to_address=self.address(to), amount=to_messages((Coin(denom, amount),))
        )
        return self.signed(message, sender, sequence, memo=memo, gas=gas)

    def signed(
        self, message: Any, sender: str, sequence: int, *, memo: str = "", gas: int = 200_000, more: Sequence[Any] = (), amino: bool = False
    ) -> bytes:
        """A signed transaction of a message, and more, which have this network's addresses; signed as amino JSON if asked."""
        messages, fee = (message, *more), (Coin("wei", gas * 10**9),)
        signer = Signer(KEYS[sender].public_key, sequence, NAMES.index(sender), LEGACY_AMINO_JSON if amino else DIRECT)
        unsigned = build_tx(messages, fee=fee, gas_limit=gas, signers=[signer], memo=memo)
        common: dict[str, Any] = {"chain_id": CHAIN_ID, "account_number": signer.account_number}
        if amino:
            plain: dict[str, Any] = {"payer": "", "granter": "", "timeout_height": 0}
            signed = signing.amino_bytes(messages, fee=fee, gas_limit=gas, memo=memo, sequence=sequence, **plain, **common)
        else:
            signed = signing.direct_bytes(encode(unsigned.body), encode(unsigned.auth_info), **common)
        return unsigned.encode([KEYS[sender].sign(signed)])

    def send(self, name: str, raw: bytes) -> None:
        """Broadcast a transaction and wait until it is in a block and indexed."""
        client = CometClient(self.rpc)
        try:
            answer = client.broadcast(raw)
            assert answer["code"] == 0, f"{self.name} refuses {name}: {answer['log']}"
            self.raw[name] = raw
            self.heights[name] = int(ask_until(lambda: client.call("tx", hash=_base64(raw), prove=False), 60)["height"])
        finally:
            client.close()

    def height(self) -> int:
        client = CometClient(self.rpc)
        try:
            return int(client.call("status")["sync_info"]["latest_block_height"])
        finally:
            client.close()


def _base64(raw: bytes) -> str:
    return base64.b64encode(hashlib.sha256(raw).digest()).decode()


@contextlib.contextmanager
def pair(folder: Path, **params: dict[str, Any]) -> Iterator[tuple[Side, Side]]:
    """(simd, ours), both running, with the same transactions in their blocks. ``params``: by section of app_state, parameters to begin with."""
    with simd_alone(folder / "simd", params) as theirs, _ours(folder / "ours", params) as ours:
        for side in (theirs, ours):
            ask_until(lambda side=side: side.height() >= 2, 90)
            side.send("first", side.tx("a", "b", 5, 0, memo="first"))
            side.send("second", side.tx("a", "c", 7, 1, memo="second"))
            side.send("poor", side.tx("a", "b", 10**12, 2, memo="more than there is"))
            side.send("back", side.tx("b", "a", 1, 0, denom="xyz", memo="back"))
        yield theirs, ours


@contextlib.contextmanager
def simd_alone(home: Path, params: Mapping[str, dict[str, Any]]) -> Iterator[Side]:
    """The real simd, running, with one validator, funded keys, and Stratos' inflation and community tax: none."""
    simd = peers.simd()
    side = Side("simd", "cosmos", home, free_ports(4))
    keyring = ["--keyring-backend", "test"]

    def run(*arguments: str, given: str = "") -> None:
        done = subprocess.run([simd, "--home", home, *arguments], input=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("init", "v", "--chain-id", CHAIN_ID, "--default-denom", "wei")
    run("keys", "add", "val", "--recover", "--hd-path", "m/44'/606'/0'/0/0", *keyring, given=WORDS + "\n")
    for name in NAMES:
        run("genesis", "add-genesis-account", side.address(name), ",".join(f"{amount}{denom}" for denom, amount in COINS))
    path = home / "config" / "genesis.json"
    made = json.loads(path.read_text())
    state = made["app_state"]
    state["bank"]["send_enabled"], state["bank"]["denom_metadata"] = SEND_ENABLED, METADATA
    state["mint"]["minter"]["inflation"] = "0.000000000000000000"
    for name in ("inflation_rate_change", "inflation_max", "inflation_min"):
        state["mint"]["params"][name] = "0.000000000000000000"
    state["distribution"]["params"]["community_tax"] = "0.000000000000000000"
    for section, changed in params.items():
        state[section]["params"].update(changed)
    path.write_text(json.dumps(made))
    run("genesis", "gentx", "val", f"{STAKE}wei", "--chain-id", CHAIN_ID, "--moniker", "pair", *keyring)
    run("genesis", "collect-gentxs")
    lines = {"timeout_commit": 'timeout_commit = "1s"', "pprof_laddr": 'pprof_laddr = ""'}
    toml = home / "config" / "config.toml"
    toml.write_text("\n".join(lines.get(line.split(" = ")[0], line) for line in toml.read_text().splitlines()) + "\n")
    flags = ["--rpc.laddr", side.rpc, "--p2p.laddr", f"tcp://127.0.0.1:{side.base + 1}", "--minimum-gas-prices", "1000000000wei"]
    flags += ["--grpc.address", side.grpc, "--api.enable", "--api.address", side.rest.replace("http", "tcp")]
    with _running([str(simd), "--home", str(home), "start", *flags], home):
        yield side


@contextlib.contextmanager
def _ours(root: Path, params: Mapping[str, dict[str, Any]]) -> Iterator[Side]:
    side = Side("ours", "st", root, free_ports(4))
    home = config.Home(root)
    nodekeys.create_missing(home)
    config.write_defaults(home, "pair")
    config.update(home.comet_config, {"rpc.laddr": side.rpc, "p2p.laddr": f"tcp://127.0.0.1:{side.base + 1}", "consensus.timeout_commit": "1s"})
    config.update(home.app_config, {"grpc.address": side.grpc, "api.address": side.rest.replace("http", "tcp")})
    made = build.default_document(modules(), CHAIN_ID, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "pair")
    for name in NAMES:
        build.add_account(made, KEYS[name].public_key.address, tuple(Coin(*coin) for coin in COINS))
    made["app_state"]["bank"].update(send_enabled=SEND_ENABLED, denom_metadata=METADATA)
    made["app_state"]["crisis"]["constant_fee"]["amount"] = "1000"  # simd's default
    build.pin_supply(made)  # simd keeps the supply at no level
    for section, changed in params.items():
        made["app_state"][section]["params"].update(changed)
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": "pair"},
        validator_address=side.address("val", "valoper"),
        pubkey=public_key_to_any(nodekeys.validator_key(home)),
        min_self_delegation="1",
        value={"denom": "wei", "amount": str(STAKE)},
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    raw = build_tx([message], fee=(), gas_limit=200_000, signers=[Signer(KEYS["val"].public_key, 0)]).sign([KEYS["val"]], CHAIN_ID)
    made["app_state"]["genutil"]["gen_txs"] = [to_json(tx_message(raw))]
    build.validate(made, modules())
    document.save(document.normalise(made), home.genesis)
    with _running([sys.executable, "-m", "chain.cli.main", "--home", str(root), "start"], root):
        yield side


@contextlib.contextmanager
def _running(command: list[str], home: Path) -> Iterator[None]:
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield
    finally:
        end(process)
