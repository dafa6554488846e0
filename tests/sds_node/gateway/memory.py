"""A storage network in memory, and a gateway in front of it that real HTTP requests reach."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from sds_node.gateway.backend import (
    PAGE,
    Ask,
    BackendError,
    Check,
    FileInfo,
    NewShare,
    NotEnoughOzone,
    NotFound,
    SameFile,
    ShareInfo,
    StringRefused,
    WalletState,
    WrongPassword,
)
from sds_node.gateway.gateway import Gateway
from sds_node.gateway.server import Front, Listener
from sds_node.gateway_settings import Settings
from sds_node.handles import ShareLink
from sds_node.hashes import file_hash
from sds_node.legacy import is_recent
from sds_node.requests import sign_text

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())
KEY = PrivateKey(bytes.fromhex(VECTORS["wallet"]["private_key"]), "eth_secp256k1")
OTHER = PrivateKey(b"\x07" * 32, "eth_secp256k1")
NOW_S = 1_700_000_000
HELLO = b"hello stratos\n"
HELLO_HASH = "v05j1m54j7o2qk2uilomc01mmcqmv90s14t09tbg"
SN1 = "SN:0000000000000000001"


@dataclass
class Clock:
    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Held:
    info: FileInfo
    content: bytes


@dataclass
class Memory:
    """Files, shares and balances by wallet. ``used``: strings that paid for something, as the ledger keeps them."""

    clock: Clock
    chain_id: str = "stratos-test-1"
    noz: dict[str, int] = field(default_factory=dict)
    sequence: dict[str, int] = field(default_factory=dict)
    files_of: dict[str, dict[str, Held]] = field(default_factory=dict)
    shares_of: dict[str, dict[str, tuple[ShareInfo, str]]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    fail: BackendError | None = None
    closed: int = 0
    open: int = 0

    def number(self, wallet: str) -> str:
        return f"SN:{self.sequence.get(wallet, 1):019d}"

    async def wallet(self, wallet: str) -> WalletState:
        return WalletState(self.noz.get(wallet, 0), self.number(wallet), len(self.files_of.get(wallet, {})), len(self.shares_of.get(wallet, {})))

    async def file(self, ask: Ask) -> tuple[FileInfo, int] | None:
        held = self.files_of.get(ask.wallet, {}).get(ask.subject)
        return (held.info, 3) if held is not None else None

    async def files(self, ask: Ask, page: int) -> tuple[list[FileInfo], int]:
        mine = [one.info for one in self.files_of.get(ask.wallet, {}).values()]
        return mine[page * PAGE : (page + 1) * PAGE], len(mine)

    async def shares(self, ask: Ask, page: int) -> tuple[list[ShareInfo], int]:
        mine = [one for one, _ in self.shares_of.get(ask.wallet, {}).values()]
        return mine[page * PAGE : (page + 1) * PAGE], len(mine)

    def _open(self, link: ShareLink) -> Held:
        for wallet, shares in self.shares_of.items():
            if link.share_id in shares:
                share, password = shares[link.share_id]
                if password != link.password:
                    raise WrongPassword("wrong share password")
                return self.files_of[wallet][share.file.file_hash]
        raise NotFound("share doesn't exist")

    async def shared(self, ask: Ask, link: ShareLink) -> FileInfo:
        return self._open(link).info

    async def delete(self, ask: Ask) -> None:
        self._use(ask)
        if self.files_of.get(ask.wallet, {}).pop(ask.subject, None) is None:
            raise NotFound("no such file")

    async def share(self, ask: Ask, new: NewShare) -> str:
        self._use(ask)
        held = self.files_of.get(ask.wallet, {}).get(ask.subject)
        if held is None:
            raise NotFound("no such file")
        made = ShareInfo(new.share_id, new.link, held.info, int(self.clock()), new.ends_s, bool(new.password))
        self.shares_of.setdefault(ask.wallet, {})[new.share_id] = made, new.password
        return new.share_id

    async def stop_share(self, ask: Ask) -> None:
        self._use(ask)
        if self.shares_of.get(ask.wallet, {}).pop(ask.subject, None) is None:
            raise NotFound("no such share")

    def _use(self, ask: Ask) -> None:
        text = f"{ask.subject}{ask.wallet}{ask.sequence}{ask.timestamp_s}"
        if text in self.used:
            raise StringRefused("this was signed once and used before: sign again")
        if ask.sequence and not is_recent(ask.sequence, self.sequence.get(ask.wallet, 1)):
            raise StringRefused(f"expected the wallet's sequence number {self.number(ask.wallet)}")
        self.used.add(text)

    async def begin_upload(self, ask: Ask, size_bytes: int) -> MemoryStoring:
        if self.fail is not None:
            raise self.fail
        held = self.files_of.get(ask.wallet, {}).get(ask.subject)
        if held is not None:
            raise SameFile(held.info.name)
        if self.noz.get(ask.wallet, 0) < 3 * size_bytes:
            raise NotEnoughOzone(f"not enough ozone to process (Available: {self.noz.get(ask.wallet, 0)}  Required: {3 * size_bytes})")
        self._use(ask)
        self.open += 1
        return MemoryStoring(self, ask, size_bytes)

    async def begin_download(self, ask: Ask, link: ShareLink | None = None, check: Check | None = None) -> MemoryReading:
        held = self._open(link) if link is not None else self.files_of.get(ask.wallet, {}).get(ask.subject)
        if held is None:
            raise NotFound("file not found")
        if check is not None:
            check(held.info)
        if self.noz.get(ask.wallet, 0) < len(held.content):
            raise NotEnoughOzone("not enough ozone to process")
        self._use(ask)
        self.open += 1
        return MemoryReading(self, ask, held)

    async def close(self) -> None:
        pass


@dataclass
class MemoryStoring:
    memory: Memory
    ask: Ask
    size_bytes: int

    async def store(self, name: str, source: AsyncIterable[Any]) -> None:
        content = b"".join([bytes(piece) async for piece in source])
        assert len(content) == self.size_bytes
        assert file_hash(content, 0x72 if self.ask.subject.startswith("v05p") else 0x66) == self.ask.subject
        info = FileInfo(self.ask.subject, len(content), name, int(self.memory.clock()))
        self.memory.files_of.setdefault(self.ask.wallet, {})[self.ask.subject] = Held(info, content)
        self.memory.noz[self.ask.wallet] -= 3 * len(content)

    async def close(self) -> None:
        self.memory.open -= 1
        self.memory.closed += 1
        self.memory.sequence[self.ask.wallet] = self.memory.sequence.get(self.ask.wallet, 1) + 1


@dataclass
class MemoryReading:
    memory: Memory
    ask: Ask
    held: Held
    read_bytes: int = 0

    @property
    def file(self) -> FileInfo:
        return self.held.info

    async def read(self, offset: int, length: int) -> AsyncIterator[bytes]:
        self.read_bytes += length
        for start in range(offset, offset + length, 1 << 20):
            yield self.held.content[start : min(start + (1 << 20), offset + length)]

    async def close(self) -> None:
        self.memory.open -= 1
        self.memory.noz[self.ask.wallet] -= self.read_bytes
        self.memory.sequence[self.ask.wallet] = self.memory.sequence.get(self.ask.wallet, 1) + 1


def wallet_of(key: PrivateKey) -> str:
    return bech32.encode(key.public_key.address)


def signature(key: PrivateKey, text: str) -> dict[str, str]:
    pubkey = bech32.encode(key.public_key.raw, "stpub")
    return {"address": wallet_of(key), "pubkey": pubkey, "signature": sign_text(key, text)}


@dataclass
class Site:
    """A gateway that listens, and a client of it."""

    gateway: Gateway
    memory: Any
    clock: Clock
    http: httpx.AsyncClient
    port: int
    id: int = 0

    async def call(self, method: str, /, **params: Any) -> dict[str, Any]:
        self.id = number = self.id + 1
        answer = await self.http.post("/", json={"jsonrpc": "2.0", "id": number, "method": method, "params": [params]})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["id"] == number
        assert "error" not in found, found
        result: dict[str, Any] = found["result"]
        return result

    async def error(self, method: str, params: Any) -> int:
        answer = (await self.http.post("/", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).json()
        code: int = answer["error"]["code"]
        return code

    def time(self) -> int:
        return int(self.clock())

    async def sequence(self, key: PrivateKey = KEY) -> str:
        text: str = (await self.call("user_requestGetOzone", walletaddr=wallet_of(key)))["sequencynumber"]
        return text

    async def upload_params(self, content_hash: str, key: PrivateKey = KEY, time_s: int | None = None, sequence: str | None = None) -> dict[str, Any]:
        time_s, sequence = time_s or self.time(), sequence or await self.sequence(key)
        signed = signature(key, f"{content_hash}{wallet_of(key)}{sequence}{time_s}")
        return {"filehash": content_hash, "req_time": time_s, "sequencenumber": sequence, "signature": signed}

    def file_params(self, content_hash: str, key: PrivateKey = KEY, time_s: int | None = None) -> dict[str, Any]:
        time_s = time_s or self.time()
        return {"filehash": content_hash, "req_time": time_s, "signature": signature(key, f"{content_hash}{wallet_of(key)}{time_s}")}

    def list_params(self, key: PrivateKey = KEY) -> dict[str, Any]:
        return {"req_time": self.time(), "signature": signature(key, f"{wallet_of(key)}{self.time()}")}

    async def send(self, content: bytes, name: str = "hello.txt", key: PrivateKey = KEY) -> dict[str, Any]:
        """requestUpload and all uploadData, a fresh string each time as the SDK does; the last answer."""
        wanted = file_hash(content)
        answer = await self.call("user_requestUpload", filename=name, filesize=len(content), **await self.upload_params(wanted, key))
        while answer["return"] == "1":
            data = base64.b64encode(content[answer["offsetstart"] : answer["offsetend"]]).decode()
            answer = await self.call("user_uploadData", data=data, **await self.upload_params(wanted, key))
        return answer

    async def stored(self, content: bytes, name: str = "hello.txt", key: PrivateKey = KEY) -> str:
        """Upload without uploadSign, and wait until it is stored; the hash."""
        assert (await self.send(content, name, key))["return"] == "0"
        wanted = file_hash(content)
        for _ in range(400):
            status = await self.call("user_getFileStatus", **self.file_params(wanted, key))
            assert status["return"] == "0"
            if status["file_upload_state"] != 1:
                break
            await asyncio.sleep(0.02)
        assert status["file_upload_state"] == 3, status
        self.clock.now_s += 1  # what follows is signed with another time than the polls
        return wanted

    async def downloaded(self, first: dict[str, Any], wanted: str) -> bytes:
        """The rest of a download whose first packet is there."""
        found, answer = b"", first
        while answer["return"] == "2":
            assert answer["offsetstart"] == len(found)
            found += base64.b64decode(answer.get("filedata", ""))
            assert answer["offsetend"] == len(found)
            answer = await self.call("user_downloadData", filehash=wanted, reqid=first["reqid"])
        assert answer["return"] == "3", answer
        assert (await self.call("user_downloadedFileInfo", filehash=wanted, reqid=first["reqid"], filesize=len(found)))["return"] == "0"
        return found


@asynccontextmanager
async def site(folder: Path, backend: Any = None, clock: Clock | None = None, **changes: Any) -> AsyncIterator[Site]:
    """A gateway with a backend, in memory unless one is given; ``changes`` are settings."""
    clock = clock or Clock()
    memory = backend or Memory(clock, noz={wallet_of(KEY): 10**9, wallet_of(OTHER): 10**9})
    settings = replace(Settings(grace_s=0.05), **changes)
    gateway = Gateway(memory, folder, clock, settings)
    front = Front(gateway.call, allowed_hosts=settings.allowed_hosts, allowed_origins=settings.allowed_origins)
    listener = Listener(front.app)
    port = await listener.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            yield Site(gateway, memory, clock, http, port)
    finally:
        await listener.stop()
        await gateway.close()
