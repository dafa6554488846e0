"""Three ways to one node, which must answer the same: stchaind's commands, REST, gRPC. Each sends transactions and asks questions at a height."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import httpx

from chain.cli.testnet import Account
from chain.codec.json import from_json, to_json
from chain.codec.registry import POOL, message_class
from chain.coins import Coin
from chain.config import Home
from chain.tx.build import Signer, build_tx
from tests.support import Cli, stchaind

GWEI = 10**9
GAS = 400_000
TX = "cosmos.tx.v1beta1"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Person:
    """Somebody with a key, which ``home`` has in its keyring."""

    account: Account
    home: Home

    @property
    def name(self) -> str:
        return self.account.name

    @property
    def address(self) -> str:
        return self.account.address


@dataclass(frozen=True)
class Deed:
    """A transaction: what is typed after ``stchaind tx``, and its messages. The fee is a gwei for each gas."""

    who: Person
    command: Sequence[str]
    messages: Sequence[Any]
    gas: int = GAS

    @property
    def fee_wei(self) -> int:
        return self.gas * GWEI


@dataclass(frozen=True)
class Question:
    """One query in three languages: after ``stchaind query``, a path of REST, a method with its fields."""

    command: tuple[str, ...]
    path: str
    method: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class Way(Protocol):
    def send(self, deed: Deed) -> str:
        """The hash, once the node has taken the transaction."""

    def transaction(self, hash_: str) -> Any:
        """``TxResponse`` in JSON of a transaction that is in a block."""

    def ask(self, question: Question, height: int) -> Any:
        """The answer in JSON."""


class CommandLine:
    """What people type. Transactions are processes of their own, as queries may be; most queries are the same command in this process."""

    def __init__(self, home: Home, rpcs: Mapping[str, str], rpc: str) -> None:
        """``home``: where questions are typed. ``rpcs``: by home, whose node takes its transactions; ``rpc`` takes those of others, and questions."""
        self._home, self._rpcs, self._rpc = home, rpcs, rpc

    def send(self, deed: Deed) -> str:
        rpc = self._rpcs.get(str(deed.who.home.root), self._rpc)
        options = ("--from", deed.who.name, "--fees", f"{deed.fee_wei}wei", "--gas", str(deed.gas), "--node", rpc)
        told = json.loads(Cli(deed.who.home.root).ok("tx", *deed.command, *options, "--keyring-backend", "test", "-y", "-o", "json"))
        assert told["code"] == 0, told
        return str(told["txhash"])

    def transaction(self, hash_: str) -> Any:
        return self._typed("tx", hash_)

    def ask(self, question: Question, height: int) -> Any:
        return self._typed(*question.command, "--height", str(height))

    def ask_as_a_process(self, question: Question, height: int) -> Any:
        return json.loads(Cli(self._home.root).ok("query", *question.command, "--height", str(height), *self._options))

    @property
    def _options(self) -> tuple[str, ...]:
        return ("--node", self._rpc, "-o", "json")

    def _typed(self, *command: str) -> Any:
        code, out, err = stchaind(self._home.root, "query", *command, *self._options)
        assert code == 0, err
        return json.loads(out)


class Signing:
    """Signs in this process, with the account's number and sequence asked over the same way."""

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id

    def signed(self, deed: Deed) -> bytes:
        key = deed.who.account.key
        info = self.ask(account_info(deed.who.address), 0)["info"]
        signer = Signer(key.public_key, int(info["sequence"]), int(info["account_number"]))
        return build_tx(deed.messages, fee=(Coin("wei", deed.fee_wei),), gas_limit=deed.gas, signers=[signer]).sign([key], self._chain_id)

    def ask(self, question: Question, height: int) -> Any:
        raise NotImplementedError


class Rest(Signing):
    """HTTP and JSON."""

    def __init__(self, url: str, chain_id: str) -> None:
        super().__init__(chain_id)
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def send(self, deed: Deed) -> str:
        body = {"tx_bytes": base64.b64encode(self.signed(deed)).decode(), "mode": "BROADCAST_MODE_SYNC"}
        told = self._json(self._http.post("/cosmos/tx/v1beta1/txs", json=body))["tx_response"]
        assert told["code"] == 0, told
        return str(told["txhash"])

    def transaction(self, hash_: str) -> Any:
        return self._json(self._http.get(f"/cosmos/tx/v1beta1/txs/{hash_}"))["tx_response"]

    def ask(self, question: Question, height: int) -> Any:
        return self._json(self._http.get(question.path, headers={"x-cosmos-block-height": str(height)} if height else {}))

    def close(self) -> None:
        self._http.close()

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json()


class Grpc(Signing):
    """gRPC and protobuf."""

    def __init__(self, address: str, chain_id: str) -> None:
        super().__init__(chain_id)
        self._channel = grpc.insecure_channel(address)

    def send(self, deed: Deed) -> str:
        told = self._call(f"/{TX}.Service/BroadcastTx", {"tx_bytes": base64.b64encode(self.signed(deed)).decode(), "mode": "BROADCAST_MODE_SYNC"}, 0)
        assert told["tx_response"]["code"] == 0, told
        return str(told["tx_response"]["txhash"])

    def transaction(self, hash_: str) -> Any:
        return self._call(f"/{TX}.Service/GetTx", {"hash": hash_}, 0)["tx_response"]

    def ask(self, question: Question, height: int) -> Any:
        return self._call(question.method, question.fields, height)

    def close(self) -> None:
        self._channel.close()

    def _call(self, path: str, fields: Mapping[str, Any], height: int) -> Any:
        service, _, name = path.lstrip("/").partition("/")
        method = POOL.FindServiceByName(service).FindMethodByName(name)
        request = from_json(message_class(method.input_type.full_name), dict(fields))
        response = message_class(method.output_type.full_name)
        ask = self._channel.unary_unary(path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString)
        return to_json(ask(request, timeout=TIMEOUT_S, metadata=(("x-cosmos-block-height", str(height)),) if height else ()))


def account_info(address: str) -> Question:
    path = f"/cosmos/auth/v1beta1/account_info/{address}"
    return Question(("auth", "account-info", address), path, "/cosmos.auth.v1beta1.Query/AccountInfo", {"address": address})


def balance(address: str) -> Question:
    path = f"/cosmos/bank/v1beta1/balances/{address}/by_denom?denom=wei"
    return Question(("bank", "balance", address, "wei"), path, "/cosmos.bank.v1beta1.Query/Balance", {"address": address, "denom": "wei"})


def total_supply() -> Question:
    path = "/cosmos/bank/v1beta1/supply/by_denom?denom=wei"
    return Question(("bank", "total-supply-of", "wei"), path, "/cosmos.bank.v1beta1.Query/SupplyOf", {"denom": "wei"})


def community_pool() -> Question:
    return Question(
        ("distribution", "community-pool"), "/cosmos/distribution/v1beta1/community_pool", "/cosmos.distribution.v1beta1.Query/CommunityPool"
    )


def stratos(module: str, method: str, command: str, path: str, **fields: Any) -> Question:
    """A query of one of our modules: ``fields`` are the command's arguments, places in the path, and the request's fields."""
    told = f"/stratos/{module}/v1/{path.format(**fields)}"
    return Question((module, command, *map(str, fields.values())), told, f"/stratos.{module}.v1.Query/{method}", fields)
