"""``owner_*`` methods: they spend from the node's own wallet, so they have a door of their own, which no web page can reach.

    unix socket (0600), or a loopback port, each with a random bearer token in a file (0600) ─► OwnerDoor ─► Owner ─► value chain

Never CORS, never on the clients' port. ``ChainOwner`` does what the chain alone can do; a running node puts itself in its place to begin mining.
Source: sds.md 5.7; storage-protocol.md 5.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response

from chain.codec.registry import message_class
from chain.coins import CoinMessage
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from chain.errors import AppError
from chain.tx.fees import parse_amounts
from sds_node.gateway.gateway import DISCOVER, worked
from sds_node.gateway.results import (
    INTERNAL_COMM_FAILURE,
    INTERNAL_DATA_FAILURE,
    METHOD_NOT_FOUND,
    SUCCESS,
    WRONG_INPUT,
    WRONG_WALLET_ADDRESS,
    Failed,
    RpcError,
    result,
)
from sds_node.gateway.server import Front, Listener
from sds_node.gateway.table import OWNER_METHODS, Params, discover
from sds_node.handles import HandleError, parse_wallet
from sds_node.value_chain import views
from sds_node.value_chain.client import ChainUnavailable, ValueChain, ValueChainError
from sds_node.value_chain.sender import Sender

TOKEN_BYTES: Final = 32
MAX_WEI: Final = (1 << 127) - 1
STORAGE_TYPE: Final = 4
"""The node type of a storage node on chain."""
ACTIVE: Final = 1
PENDING: Final = 2
_REGISTER: Final = "stratos.register.v1"
_DESCRIPTION: Final = ("moniker", "identity", "website", "security_contact", "details")


class Owner(Protocol):
    """What the owner of a node can have done. ``wallet`` is the node's, as text. Everything raises ValueChainError, and Failed for what makes no sense."""

    @property
    def wallet(self) -> str: ...

    async def is_registered(self) -> bool: ...

    async def activate(self, deposit_wei: int) -> int:
        """Register the node with a deposit; 1: it is active, 2: it will be."""
        ...

    async def prepay(self, amount_wei: int) -> None: ...

    async def start_mining(self) -> None: ...

    async def withdraw(self, amount_wei: int, target: str) -> None: ...

    async def send(self, amount_wei: int, to: str) -> None: ...

    async def status(self) -> str: ...

    async def update_info(self, description: dict[str, str]) -> str: ...


class ChainOwner:
    """An Owner by transactions alone. ``p2p_key`` is the node's public key, 32 bytes. ``begin`` has the node take shares, where one runs here."""

    def __init__(self, chain: ValueChain, sender: Sender, p2p_key: bytes, *, begin: Callable[[], Awaitable[None]] | None = None) -> None:
        self._chain, self._sender, self._begin = chain, sender, begin
        self._key = Ed25519PublicKey(p2p_key)
        self._node = bech32.encode(self._key.address, bech32.NODE)

    @property
    def wallet(self) -> str:
        return self._sender.address

    async def is_registered(self) -> bool:
        return await views.resource_node(self._chain, self._key.address) is not None

    async def activate(self, deposit_wei: int) -> int:
        if await self.is_registered():
            raise Failed(INTERNAL_DATA_FAILURE, f"{self._node} is registered already: raise its deposit instead (ppd deposit)")
        message = message_class(f"{_REGISTER}.MsgCreateResourceNode")(
            network_address=self._node,
            pubkey=public_key_to_any(self._key),
            value=CoinMessage(denom="wei", amount=str(deposit_wei)),
            owner_address=self.wallet,
            beneficiary_address=self.wallet,
            description={"moniker": self._node},
            node_type=STORAGE_TYPE,
        )
        await self._sender.send([message])
        # Meta nodes make it active when they have heard of it.
        return PENDING

    async def prepay(self, amount_wei: int) -> None:
        coins = [CoinMessage(denom="wei", amount=str(amount_wei))]
        await self._sender.send([message_class("stratos.sds.v1.MsgPrepay")(sender=self.wallet, beneficiary=self.wallet, amount=coins)])

    async def start_mining(self) -> None:
        if not await self.is_registered():
            raise Failed(INTERNAL_DATA_FAILURE, f"{self._node} is not registered: call owner_requestActivate first")
        if self._begin is None:
            raise Failed(INTERNAL_DATA_FAILURE, "no node runs here: start it with `ppd start`, it takes shares as soon as it is active")
        await self._begin()

    async def withdraw(self, amount_wei: int, target: str) -> None:
        coins = [CoinMessage(denom="wei", amount=str(amount_wei))]
        message = message_class("stratos.pot.v1.MsgWithdraw")(amount=coins, wallet_address=self.wallet, target_address=target or self.wallet)
        await self._sender.send([message])

    async def send(self, amount_wei: int, to: str) -> None:
        coins = [CoinMessage(denom="wei", amount=str(amount_wei))]
        await self._sender.send([message_class("cosmos.bank.v1beta1.MsgSend")(from_address=self.wallet, to_address=to, amount=coins)])

    async def status(self) -> str:
        node = await views.resource_node(self._chain, self._key.address)
        rewards = await views.rewards(self._chain, bech32.decode(self.wallet))
        balance_wei = await self._chain.balance_wei(self.wallet)
        state = "not registered" if node is None else f"registered, {node.standing.name.lower()}, deposit {node.tokens_wei} wei"
        return (
            f"Registration Status: {state} | Mining: {'on' if node is not None and node.standing is views.Standing.ACTIVE else 'off'} | "
            f"balance {balance_wei} wei | rewards {rewards.mature_wei} wei to withdraw, {rewards.immature_wei} wei to mature"
        )

    async def update_info(self, description: dict[str, str]) -> str:
        if not await self.is_registered():
            raise Failed(INTERNAL_DATA_FAILURE, f"{self._node} is not registered: call owner_requestActivate first")
        found = (await views.ask(self._chain, f"/{_REGISTER}.Query/ResourceNode", network_addr=self._node)).node
        # The chain takes a description whole.
        kept = {name: description[name] or getattr(found.description, name) for name in _DESCRIPTION}
        message = message_class(f"{_REGISTER}.MsgUpdateResourceNode")(
            description=kept, network_address=self._node, owner_address=self.wallet, node_type=found.node_type
        )
        await self._sender.send([message])
        return "the node's description is changed"


class OwnerDoor:
    """Serves ``owner_*`` methods for one node. ``token_file`` gets the token, readable by the node's user alone."""

    def __init__(self, owner: Owner, token_file: Path, *, version: str = "1") -> None:
        self._owner, self._version = owner, version
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        _write_private(token_file, self.token)
        self._methods = {one.name: (one, _WORK[one.name]) for one in OWNER_METHODS}
        # No origins: a browser that sends one gets nothing it may read, and without the token nobody gets anything.
        self.front = Front(self.call, allowed_hosts=("localhost", "owner"), allowed_origins=(), check=self._check)

    async def listen(self, *, port: int | None = None, path: Path | None = None) -> Listener:
        """Listen at 127.0.0.1 or, with ``path``, at a unix socket. Raises OSError."""
        listener = Listener(self.front.app)
        if path is None:
            await listener.start("127.0.0.1", port or 0)
            return listener
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        await listener.start(path=str(path))
        return listener

    def _check(self, request: Request) -> Response | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(errors="replace"), self.token.encode())
        if scheme.lower() != "bearer" or not is_right or "origin" in request.headers:
            return Response("expected Authorization: Bearer and the token in the node's home\n", 401, {"WWW-Authenticate": "Bearer"})
        return None

    async def call(self, name: str, given: Any) -> Any:
        """A method's result. Raises RpcError."""
        if name == DISCOVER:
            return discover(OWNER_METHODS, self._version)
        found = self._methods.get(name)
        if found is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {name[:80]} does not exist/is not available")
        return await worked(found[0], lambda params: _told(found[1](self._owner, params)), given)


def _write_private(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")


async def _told(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    try:
        return await work
    except ChainUnavailable as error:
        raise Failed(INTERNAL_COMM_FAILURE, str(error)) from None
    except ValueChainError as error:
        raise Failed(INTERNAL_DATA_FAILURE, str(error)) from None


# --- methods ---


def _check_wallet(owner: Owner, params: Params) -> None:
    if params.text("walletaddr") != owner.wallet:
        raise Failed(WRONG_WALLET_ADDRESS, f"walletaddr: the node's wallet is {owner.wallet}")


def _amount(params: Params, name: str) -> int:
    """The wei of an amount. Raises Failed."""
    given = params.text(name).replace(" ", "")
    try:
        coins = parse_amounts(given)
        total = sum(coin.amount for coin in coins if coin.denom == "wei")
    except (AppError, ValueError) as error:
        raise Failed(WRONG_INPUT, f"{name}: expected an amount as 100gwei or 1600stos: {error}") from None
    if any(coin.denom != "wei" for coin in coins) or not 1 <= total <= MAX_WEI:
        raise Failed(WRONG_INPUT, f"{name}: expected an amount as 100gwei or 1600stos, got {given[:60]!a}")
    return total


def _account(params: Params, name: str) -> str:
    try:
        parse_wallet(params.text(name))
    except HandleError as error:
        raise Failed(WRONG_INPUT, f"{name}: {error}") from None
    return params.text(name)


async def _register(owner: Owner, params: Params) -> dict[str, Any]:
    return result(SUCCESS, alreadypp=await owner.is_registered())


async def _activate(owner: Owner, params: Params) -> dict[str, Any]:
    _check_wallet(owner, params)
    return result(SUCCESS, activationstate=await owner.activate(_amount(params, "deposit")))


async def _prepay(owner: Owner, params: Params) -> dict[str, Any]:
    await owner.prepay(_amount(params, "prepayamount"))
    return result(SUCCESS)


async def _mine(owner: Owner, params: Params) -> dict[str, Any]:
    _check_wallet(owner, params)
    await owner.start_mining()
    return result(SUCCESS)


async def _withdraw(owner: Owner, params: Params) -> dict[str, Any]:
    await owner.withdraw(_amount(params, "amount"), _account(params, "target_address") if params.text("target_address") else "")
    return result(SUCCESS)


async def _send(owner: Owner, params: Params) -> dict[str, Any]:
    await owner.send(_amount(params, "amount"), _account(params, "to"))
    return result(SUCCESS)


async def _status(owner: Owner, params: Params) -> dict[str, Any]:
    _check_wallet(owner, params)
    return result(SUCCESS, message=await owner.status())


async def _update(owner: Owner, params: Params) -> dict[str, Any]:
    return result(SUCCESS, message=await owner.update_info({name: params.text(name) for name in _DESCRIPTION}))


_WORK: Final[dict[str, Callable[[Owner, Params], Awaitable[dict[str, Any]]]]] = {
    "owner_requestRegisterNewPP": _register,
    "owner_requestActivate": _activate,
    "owner_requestPrepay": _prepay,
    "owner_requestStartMining": _mine,
    "owner_requestWithdraw": _withdraw,
    "owner_requestSend": _send,
    "owner_requestStatus": _status,
    "owner_requestUpdatePPInfo": _update,
}
