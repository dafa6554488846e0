"""What one wallet, one host or one request may take of a gateway, and what is left when something goes wrong in the middle."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chain.crypto.keys import PrivateKey
from sds_node.gateway import connections, rpc, uploading
from sds_node.gateway.backend import Ask, BackendError, Check, FileInfo
from sds_node.gateway.budget import Budget, charge
from sds_node.gateway.gateway import Gateway
from sds_node.gateway.results import Failed
from sds_node.gateway.server import Front, Listener
from sds_node.gateway.spool import NoRoom, Spool
from sds_node.gateway.turns import Turns
from sds_node.gateway_settings import Settings
from sds_node.handles import ShareLink
from sds_node.hashes import file_hash
from sds_node.requests import sign_text, v2_text
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import (
    HELLO,
    HELLO_HASH,
    KEY,
    OTHER,
    Clock,
    Held,
    Memory,
    MemoryReading,
    MemoryStoring,
    Site,
    signature,
    site,
    wallet_of,
)
from tests.sds_node.gateway.test_streaming import body as prepare_body
from tests.sds_node.gateway.test_streaming import streaming

pytestmark = pytest.mark.asyncio
WALLET = wallet_of(KEY)
WAIT_S = 30.0


@dataclass
class Gated(Memory):
    """A network that begins downloads when it is let, and fails to store as often as it is told."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    began: int = 0
    failures: int = 0
    leases: list[Ask] = field(default_factory=list)

    async def begin_download(self, ask: Ask, link: ShareLink | None = None, check: Check | None = None) -> MemoryReading:
        self.began += 1
        await self.gate.wait()
        return await super().begin_download(ask, link, check)

    async def begin_upload(self, ask: Ask, size_bytes: int) -> MemoryStoring:
        self.leases.append(ask)
        made = await super().begin_upload(ask, size_bytes)
        return Failing(made.memory, made.ask, made.size_bytes)


class Failing(MemoryStoring):
    """An upload that fails while its network has failures left."""

    async def store(self, name: str, source: AsyncIterable[Any]) -> None:
        memory: Any = self.memory
        if memory.failures:
            memory.failures -= 1
            raise BackendError("the nodes went away")
        await super().store(name, source)


def gated(clock: Clock, held: bytes = HELLO) -> Gated:
    made = Gated(clock, noz={WALLET: 10**9, wallet_of(OTHER): 10**9})
    wanted = file_hash(held)
    made.files_of[WALLET] = {wanted: Held(FileInfo(wanted, len(held), "held", 1), held)}
    return made


@dataclass
class Dripping(Memory):
    """A network from which one wallet's bytes do not come until they are let."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: int = 0

    async def begin_download(self, ask: Ask, link: ShareLink | None = None, check: Check | None = None) -> MemoryReading:
        made = await super().begin_download(ask, link, check)
        return Stuck(made.memory, made.ask, made.held) if ask.wallet == WALLET else made


class Stuck(MemoryReading):
    """A read of that wallet's."""

    async def read(self, offset: int, length: int) -> AsyncIterator[bytes]:
        memory: Any = self.memory
        memory.stuck += 1
        await memory.gate.wait()
        async for piece in super().read(offset, length):
            yield piece


def download_params(sequence: str, time_s: int, wanted: str = HELLO_HASH, key: PrivateKey = KEY) -> dict[str, Any]:
    wallet = wallet_of(key)
    signed = signature(key, f"{wanted}{wallet}{sequence}{time_s}")
    return {"filehandle": f"sdm://{wallet}/{wanted}", "req_time": time_s, "signature": signed}


async def until(is_so: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- answers ---


async def test_a_batch_is_answered_until_its_answers_are_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_BATCH_BYTES", 300_000)
    async with site(tmp_path) as here:
        wanted = await here.stored(content(1, 200_000))
        first = await here.call("user_requestVideoDownload", **download_params(await here.sequence(), here.time(), wanted))
        ask = {"method": "user_requestDownloadSliceData", "params": [{"filehash": wanted, "reqid": first["reqid"], "slicenumber": 1}]}
        answers = (await here.http.post("/", json=[{"jsonrpc": "2.0", "id": number, **ask} for number in range(10)])).json()
        assert [one["id"] for one in answers] == list(range(10))
        assert ["result" in one for one in answers] == [True, True] + [False] * 8
        assert answers[2]["error"]["code"] == -32_000


async def test_answers_wait_for_room_and_are_refused_when_there_is_none() -> None:
    budget = Budget(1_000)
    first, second = budget.tab(), budget.tab()
    with first.open():
        await charge(200)  # counts four times
    waiting = asyncio.create_task(second.charge(300))
    await asyncio.sleep(0)
    assert (budget.taken_bytes, waiting.done()) == (800, False)
    first.settle(500)
    await waiting
    assert budget.taken_bytes == 800
    first.close()
    second.close()
    assert budget.taken_bytes == 0
    impatient = Budget(1_000, wait_s=0)
    with impatient.tab().open():
        await charge(10_000)  # more than there is, and nobody else has any
    with impatient.tab().open(), pytest.raises(Failed, match="too many answers"):
        await charge(1)


@contextlib.asynccontextmanager
async def fronted(tmp_path: Path, memory: Memory) -> Any:
    """(front, port) of a gateway whose front is at hand."""
    gateway = Gateway(memory, tmp_path, memory.clock, Settings(grace_s=0.05))
    front = Front(gateway.call)
    listener = Listener(front.app)
    port = await listener.start()
    try:
        yield front, port
    finally:
        await listener.stop()
        await gateway.close()


def posted(method: str, **params: Any) -> bytes:
    said = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": [params]}).encode()
    return b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)


async def test_what_a_client_does_not_read_counts_until_it_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SEND_S", 0.2)
    data = content(2, 24_000_000)
    memory = gated(Clock(), data)
    memory.gate.set()
    async with fronted(tmp_path, memory) as (front, port):
        wanted = file_hash(data)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(posted("user_requestVideoDownload", **download_params(memory.number(WALLET), int(memory.clock()), wanted)))
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)).lower()
        size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        reqid = json.loads(await reader.readexactly(size))["result"]["reqid"]
        assert front.answers.taken_bytes == 0
        writer.write(posted("user_requestDownloadSliceData", filehash=wanted, reqid=reqid, slicenumber=1))
        await reader.readuntil(b"\r\n\r\n")
        held: int = front.answers.taken_bytes
        assert held > 30_000_000
        await until(lambda: front.answers.taken_bytes == 0)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(32_000_000)
        writer.close()


# --- connections ---


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has closed it without a word; closes this side."""
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await asyncio.wait_for(reader.read(), WAIT_S)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return said == b""


async def test_who_says_nothing_or_half_a_head_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    async with fronted(tmp_path, gated(Clock())) as (_, port):
        assert await closed(*await asyncio.open_connection("127.0.0.1", port))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: 127")
        assert await closed(reader, writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET / HT")
        assert await closed(reader, writer)


async def test_a_host_has_so_many_connections_and_this_machine_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_OF_HOST", 2)
    async with fronted(tmp_path, gated(Clock())) as (_, port):

        async def connected(count: int) -> list[bool]:
            """Of each connection whether it is answered; they end together."""
            made = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
            found = []
            for reader, writer in made:
                with contextlib.suppress(ConnectionError):
                    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    await writer.drain()
                try:
                    found.append(b"200" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S))
                except (asyncio.IncompleteReadError, ConnectionError):
                    found.append(False)
            for _, writer in made:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            return found

        assert await connected(4) == [True] * 4
        monkeypatch.setattr(connections, "_is_here", lambda _: False)
        assert await connected(4) == [True, True, False, False]


# --- uploads ---


async def begin(here: Site, number: int, size: int, key: Any = KEY) -> dict[str, Any]:
    params = await here.upload_params(file_hash(b"%d" % number), key)
    return await here.call("user_requestUpload", filename="x", filesize=size, **params)


async def test_a_wallets_uploads_are_together_what_it_could_pay_and_a_quarter_of_the_disk(tmp_path: Path) -> None:
    async with site(tmp_path, spool_bytes=4 << 20) as here:
        here.memory.noz[WALLET] = 1_000
        assert [(await begin(here, number, 400))["return"] for number in range(3)] == ["1", "1", "-9"]
        here.memory.noz[WALLET] = 10**9
        refused = await begin(here, 3, 1 << 20)
        assert (refused["return"], "of one wallet" in refused["detail"]) == ("-9", True)
        assert (await begin(here, 4, 1 << 20, OTHER))["return"] == "1"
        assert (await begin(here, 5, (64 << 30) + 1))["return"] == "-4"


async def test_polls_keep_no_room_for_bytes_that_never_come(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        assert (await begin(here, 1, 1_000))["return"] == "1"
        for _ in range(2):
            here.clock.now_s += 600
            status = await here.call("user_getFileStatus", **here.file_params(file_hash(b"1")))
            assert status["file_upload_state"] == 1
        here.gateway.uploads.expire()
        assert (len(here.gateway.uploads), here.gateway.room.taken_bytes) == (0, 0)


async def test_few_wallets_cannot_take_all_places(tmp_path: Path) -> None:
    async with site(tmp_path, uploads_most=3) as here:
        for number in range(3):
            assert (await begin(here, number, 10))["return"] == "1"
        assert (await begin(here, 3, 10, OTHER))["return"] == "-9"
        here.clock.now_s += uploading.QUIET_S + 1
        assert (await begin(here, 3, 10, OTHER))["return"] == "1"
        here.clock.now_s += uploading.QUIET_S + 1
        assert (await begin(here, 4, 10, OTHER))["return"] == "-9"  # now they have nearly the same


async def test_a_full_disk_ruins_no_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(tmp_path) as here:
        params = await here.upload_params(HELLO_HASH)
        assert (await here.call("user_requestUpload", filename="x", filesize=14, **params))["return"] == "1"
        whole = {"data": base64.b64encode(HELLO).decode(), **params}
        write = Spool.write

        async def full(self: Spool, offset: int, data: Any) -> None:
            raise NoRoom("the disk is full")

        monkeypatch.setattr(Spool, "write", full)
        assert (await here.call("user_uploadData", **whole))["return"] == "-9"
        monkeypatch.setattr(Spool, "write", write)
        assert (await here.call("user_uploadData", **whole))["return"] == "0"


async def test_what_could_not_be_stored_keeps_its_bytes_and_is_resumed(tmp_path: Path) -> None:
    clock = Clock()
    memory = gated(clock)
    memory.failures = 1
    async with site(tmp_path, memory, clock) as here:
        data = content(3, 5_000)
        wanted = file_hash(data)
        assert (await here.send(data))["return"] == "0"
        upload = here.gateway.uploads.get(WALLET, wanted)
        assert upload is not None
        await until(lambda: upload.error)
        status = await here.call("user_getFileStatus", **here.file_params(wanted))
        assert (status["file_upload_state"], "nodes went away" in status["error"]) == (2, True)
        here.clock.now_s += 1
        again = await here.upload_params(wanted)
        answer = await here.call("user_requestUpload", filename="x", filesize=len(data), resume=True, **again)
        assert answer["return"] == "0"
        await until(lambda: upload.phase is uploading.Phase.DONE)
        assert memory.files_of[WALLET][wanted].content == data
        assert [one.timestamp_s for one in memory.leases][-1] == again["req_time"]
        assert (here.gateway.room.taken_bytes, memory.open) == (0, 0)


async def test_a_lease_that_is_old_is_taken_anew_by_a_newer_string(tmp_path: Path) -> None:
    clock = Clock()
    memory = gated(clock)
    async with site(tmp_path, memory, clock, upload_idle_s=86_400) as here:
        data = content(4, 4_000_000)
        wanted = file_hash(data)
        first = await here.upload_params(wanted)
        assert (await here.call("user_requestUpload", filename="x", filesize=len(data), **first))["offsetend"] == 3_500_000
        clock.now_s += 250
        await here.call("user_uploadData", data=base64.b64encode(data[:3_500_000]).decode(), **first)
        assert (len(memory.leases), memory.open) == (1, 1)
        clock.now_s += uploading.RENEW_S + 1
        last = {"data": base64.b64encode(data[3_500_000:]).decode(), **await here.upload_params(wanted)}
        assert (await here.call("user_uploadData", **last))["return"] == "0"
        upload = here.gateway.uploads.get(WALLET, wanted)
        assert upload is not None
        await until(lambda: upload.phase is uploading.Phase.DONE)
        assert [one.timestamp_s for one in memory.leases] == [first["req_time"], last["req_time"]]
        assert (memory.open, memory.files_of[WALLET][wanted].content == data) == (0, True)


# --- downloads ---


async def test_downloads_that_begin_at_once_are_not_more_than_a_wallet_may_have(tmp_path: Path) -> None:
    clock = Clock()
    memory = gated(clock)
    async with site(tmp_path, memory, clock, downloads_of_wallet=5) as here:
        sequence = await here.sequence()
        asks = [asyncio.create_task(here.call("user_requestDownload", **download_params(sequence, here.time() + one))) for one in range(20)]
        await until(lambda: memory.began == 5 and sum(one.done() for one in asks) == 15)
        memory.gate.set()
        answers = await asyncio.gather(*asks)
        assert sorted(one["return"] for one in answers) == ["-9"] * 15 + ["2"] * 5
        assert len(here.gateway.downloads) == 5


async def test_a_wallet_whose_bytes_do_not_come_leaves_a_fetch_to_others(tmp_path: Path) -> None:
    clock = Clock()
    held = {HELLO_HASH: Held(FileInfo(HELLO_HASH, len(HELLO), "held", 1), HELLO)}
    memory = Dripping(clock, noz={WALLET: 10**9, wallet_of(OTHER): 10**9}, files_of={WALLET: held, wallet_of(OTHER): dict(held)})
    async with site(tmp_path, memory, clock, fetches_at_once=4) as here:
        mine, theirs = await here.sequence(), await here.sequence(OTHER)
        slow = [asyncio.create_task(here.call("user_requestDownload", **download_params(mine, here.time() + one))) for one in range(6)]
        await until(lambda: len(here.gateway.downloads) == 6 and memory.stuck >= 3)
        try:
            for one in range(3):
                params = download_params(theirs, here.time() + one, key=OTHER)
                async with asyncio.timeout(WAIT_S):
                    assert (await here.call("user_requestDownload", **params))["return"] == "2"
            assert memory.stuck == 3
        finally:
            memory.gate.set()
        assert [one["return"] for one in await asyncio.gather(*slow)] == ["2"] * 6


class Waiting:
    """Calls that take a place and keep it until they are told; ``came``: in which order they had it."""

    def __init__(self, most: int) -> None:
        self.turns, self.came = Turns(most), list[str]()
        self.done: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """Each is of the wallet that its first letter says."""
        for name in names:
            self.done[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._one(name))
        await self.settled()

    async def _one(self, name: str) -> None:
        async with self.turns.take(name[0]):
            self.came.append(name)
            await self.done[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self.done[name].set()
        await self.settled()

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_places_go_from_wallet_to_wallet_and_of_one_wallet_in_the_order_of_coming() -> None:
    all_ = Waiting(3)
    await all_.ask("a1", "a2", "a3", "a4", "b1", "b2", "c1", "c2")
    assert all_.came == ["a1", "a2", "b1"]  # a's third waits, though a place was free
    await all_.end("b1")
    assert all_.came[3:] == ["b2"]  # a has its part, and b came before c
    await all_.end("a1", "a2")
    assert all_.came[4:] == ["a3", "c1"]
    await all_.end("b2", "a3", "c1")
    assert all_.came[6:] == ["a4", "c2"]
    await all_.ask("a5")
    assert all_.came[8:] == ["a5"]
    await all_.end("a4", "c2", "a5")
    await asyncio.gather(*all_.tasks.values())
    assert (all_.turns._free, dict(all_.turns._held), all_.turns._waiting) == (3, {}, {})


async def test_of_one_place_a_wallet_has_one() -> None:
    all_, order = Waiting(1), ["a1", "a2", "b1", "a3"]
    await all_.ask("a1", "a2", "a3", "b1")
    for at, name in enumerate(order):
        assert all_.came == order[: at + 1]
        await all_.end(name)
    await asyncio.gather(*all_.tasks.values())


@pytest.mark.parametrize("given", ["later", "before", "after"])
async def test_who_is_cancelled_while_it_waits_takes_no_place_along(given: str) -> None:
    """Also when a place is given back in the same moment, before or after."""
    all_ = Waiting(2)
    await all_.ask("a1", "b1", "a2", "c1")
    if given == "before":
        all_.done["b1"].set()
        while all_.turns._held["b"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
    for name in ("a2", "c1"):
        all_.tasks[name].cancel()
    if given == "after":
        all_.turns._give("b")
        all_.turns._have("b")
    await asyncio.gather(all_.tasks["a2"], all_.tasks["c1"], return_exceptions=True)
    assert (all_.came, all_.turns._waiting) == (["a1", "b1"], {})
    await all_.end("a1", "b1")
    assert (all_.turns._free, dict(all_.turns._held)) == (2, {})
    await all_.ask("c2", "b2")
    assert all_.came[2:] == ["c2", "b2"]
    await all_.end("c2", "b2")


async def test_one_string_that_comes_twice_at_once_begins_one_download(tmp_path: Path) -> None:
    clock = Clock()
    memory = gated(clock)
    async with site(tmp_path, memory, clock) as here:
        params = download_params(await here.sequence(), here.time())
        both = [asyncio.create_task(here.call("user_requestDownload", **params)) for _ in range(2)]
        await until(lambda: memory.began)
        memory.gate.set()
        first, second = await asyncio.gather(*both)
        assert (first["return"], second["return"], first["reqid"]) == ("2", "2", second["reqid"])
        assert memory.began == 1


async def test_a_range_that_the_file_has_not_costs_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        here.memory.used.clear()
        params = download_params(await here.sequence(), here.time())
        for start, end in ((0, 15), (5, 5), (-1, 3), (9, 2)):
            assert (await here.call("user_requestDownload", offsetstart=start, offsetend=end, **params))["return"] == "-7"
        assert (here.memory.used, here.memory.open, len(here.gateway.downloads)) == (set(), 0, 0)


async def test_a_download_that_is_ended_while_it_begins_gives_its_lease_back(tmp_path: Path) -> None:
    clock = Clock()
    memory = gated(clock)
    async with site(tmp_path, memory, clock) as here:
        link = (await here.call("user_requestShare", **here.file_params(HELLO_HASH)))["sharelink"]
        time_s, other = here.time(), wallet_of(OTHER)
        old = await here.call("user_requestGetShared", sharelink=link, req_time=time_s, signature=signature(OTHER, f"{link}{other}{time_s}"))
        signed = signature(OTHER, f"{HELLO_HASH}{other}{old['sequencenumber']}{time_s}")
        named = {"filehash": HELLO_HASH, "reqid": old["reqid"]}
        second = asyncio.create_task(here.call("user_requestDownloadShared", req_time=time_s, signature=signed, **named))
        await until(lambda: memory.began)
        download = here.gateway.downloads.get(old["reqid"], HELLO_HASH)
        ended = asyncio.create_task(here.call("user_downloadedFileInfo", **named))
        here.gateway.downloads.drop(download)  # as when the gateway is idle for long, or stops
        memory.gate.set()
        assert (await second)["return"] == "-1"
        assert (await ended)["return"] == "0"
        await until(lambda: memory.open == 0)
        assert (memory.began, len(here.gateway.downloads)) == (1, 0)


# --- videos ---


async def test_a_prepare_that_finds_no_room_leaves_none_taken(tmp_path: Path) -> None:
    async with site(tmp_path, spool_bytes=10_000_000) as here, streaming(here, tmp_path) as http:
        data = content(5, 6_000_000)
        wanted = file_hash(data)
        here.memory.files_of[WALLET] = {wanted: Held(FileInfo(wanted, len(data), "x", 1), data)}
        answer = await http.post(f"/prepareVideoFileCache/{WALLET}/{wanted}", json=await prepare_body(here, wanted))
        assert (answer.status_code, "no room" in answer.json()["message"]) == (500, True)
        assert (here.gateway.room.taken_bytes, here.memory.open) == (0, 0)


async def test_a_prepare_that_is_sent_again_gives_the_same_video(tmp_path: Path) -> None:
    clock = Clock()
    memory = gated(clock)
    async with site(tmp_path, memory, clock) as here, streaming(here, tmp_path) as http:
        path, said = f"/prepareVideoFileCache/{WALLET}/{HELLO_HASH}", await prepare_body(here, HELLO_HASH)
        both = [asyncio.create_task(http.post(path, json=said)) for _ in range(2)]
        await until(lambda: memory.began)
        memory.gate.set()
        answers = [one.json() for one in await asyncio.gather(*both)]
        answers.append((await http.post(path, json=said)).json())
        assert len({one["reqId"] for one in answers}) == 1
        assert memory.began == 1


# --- strangers ---


async def test_new_wallets_have_empty_lists_and_strangers_leave_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.memory.noz.clear()
        here.memory.sequence[WALLET] = 0
        for method in ("user_requestList", "user_requestListShare"):
            assert await here.call(method, page=0, **here.list_params()) == {"return": "0", "totalnumber": 0, "page": 0}
        cleared = await here.call("user_requestClearExpiredShareLinks", **here.list_params())
        assert (cleared["return"], cleared["deleted"], cleared["new_count"]) == ("0", 0, 0)
        theirs = here.list_params() | {"signature": here.list_params(OTHER)["signature"] | {"address": WALLET}}
        assert (await here.call("user_requestList", page=0, **theirs))["return"] == "-3"
        for number in range(3):
            params = here.file_params(file_hash(b"%d" % number))
            text = v2_text("stratos-test-1", "user_requestDeleteFile", params, WALLET, here.time() + 60)
            v2 = {"v2": {"expiry": here.time() + 60, "signature": sign_text(KEY, text)}}
            assert (await here.call("user_requestDeleteFile", **params | {"signature": params["signature"] | v2}))["return"] == "-6"
        assert len(here.gateway.used) == 0
