"""gRPC, REST and ABCI queries over one application in this process: anything may be asked, nothing breaks it and nothing holds it up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.api import server as api_server
from chain.app import build_application
from chain.application import Settings
from chain.application_queries import MAX_SUBSPACE_ENTRIES
from chain.codec.registry import POOL, message_class
from chain.config import APP_DEFAULTS
from chain.pagination import MAX_LIMIT, MAX_WALK, paginate
from chain.store.api import KVReader
from chain.store.kv import MemoryBackend
from chain.store.pruning import Pruning
from chain.store.state import EmptyView, State
from chain.testing.driver import Driver
from tests.support import KEYS, Served, chain, genesis_document, send, serve, text

HEIGHT = "x-cosmos-block-height"
PARAMS = "/cosmos.bank.v1beta1.Query/Params"
REST_PARAMS = "/cosmos/bank/v1beta1/params"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    driver = chain(blocks=2)
    driver.next_block([send(2, 3)])
    one = serve(driver)
    yield one
    one.api.stop()


def methods() -> list[str]:
    driver = chain(blocks=1)
    one = serve(driver)
    one.api.stop()
    return list(one.app.queries.paths)


PATHS = methods()


@st.composite
def requests(draw: st.DrawFn, path: str) -> bytes:
    """Random bytes, or a request with random values in its fields."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=60))
    service, _, name = path.lstrip("/").partition("/")
    return _filled(draw, POOL.FindServiceByName(service).FindMethodByName(name).input_type, 0).SerializeToString()


def _filled(draw: st.DrawFn, descriptor: Any, depth: int) -> Any:
    message = message_class(descriptor.full_name)()
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        values = [_value(draw, field, depth)] if not field.is_repeated else [_value(draw, field, depth) for _ in range(draw(st.integers(0, 3)))]
        for value in values:
            if field.message_type is not None:
                if value is not None and field.is_repeated:
                    getattr(message, field.name).add().CopyFrom(value)
                elif value is not None:
                    getattr(message, field.name).CopyFrom(value)
            elif field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def _value(draw: st.DrawFn, field: Any, depth: int) -> Any:
    if field.message_type is not None:
        return None if depth > 3 else _filled(draw, field.message_type, depth + 1)
    if field.type == field.TYPE_BOOL:
        return draw(st.booleans())
    if field.enum_type is not None:
        return draw(st.sampled_from([0, 1, 2, 3, 99]))
    if field.type == field.TYPE_BYTES:
        return draw(st.binary(max_size=40))
    if field.type == field.TYPE_STRING:
        likely = [text(KEYS[0]), "wei", "st1", "", "1", "-1", "/store/bank/key", "/app/simulate", PARAMS, "9" * 400]
        return draw(st.sampled_from(likely) | st.text(max_size=20))
    bits = 64 if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
    signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return draw(st.sampled_from([0, 1, 2, low, high]) | st.integers(low, high))


@pytest.mark.parametrize("path", PATHS)
def test_no_request_makes_a_query_method_break(path: str, served: Served) -> None:
    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        raw = data.draw(requests(path))
        height = data.draw(st.sampled_from([0, 1, 3, 4, 99, -1, (1 << 63) - 1]))
        answer = served.driver.query(path, raw, height=height)
        assert answer.code != 111222, answer.log
        assert answer.code == 0 or answer.codespace == "sdk", answer

    ask()
    assert served.panics() == {}


def test_no_bytes_make_grpc_answer_internal(served: Served) -> None:
    for path in PATHS:
        for raw in (b"\xff", b"\x0a\xff", b"\x00" * 50, b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"):
            status, _ = served.call(path, raw)
            assert status not in ("INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED"), (path, raw, status)
    assert served.panics() == {}


def test_a_height_that_is_pruned_or_not_there_yet_is_named_on_all_three_interfaces() -> None:
    app = build_application(MemoryBackend(), Settings(), pruning=Pruning.named("everything", 0, 0))
    driver = Driver([app], genesis_document(app))
    driver.start()
    for _ in range(30):
        driver.next_block()
    one = serve(driver)
    try:
        for height, code, meaning in ((1, 18, "is not kept"), (99, 26, "height in the future")):
            answer = driver.query(PARAMS, height=height)
            assert (answer.codespace, answer.code) == ("sdk", code)
            assert meaning in answer.log
            raw = driver.query("/store/bank/key", b"\x05", height=height)
            assert (raw.codespace, raw.code) == ("sdk", code)
            status, told = one.call(PARAMS, metadata=((HEIGHT, str(height)),))
            assert status == "INVALID_ARGUMENT"
            assert meaning in told
            assert told.startswith(f"codespace sdk code {code}: ")
            rest = one.get(REST_PARAMS, headers={HEIGHT: str(height)})
            assert (rest.status_code, rest.json()["code"], rest.json()["message"]) == (400, 3, told)
    finally:
        one.api.stop()


def test_a_query_handler_that_raises_fails_that_call_alone() -> None:
    driver = chain(blocks=1)
    app: Any = driver.apps[0]

    def bug(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    app.queries.add({PARAMS: bug})
    one = serve(driver)
    try:
        assert (driver.query(PARAMS).codespace, driver.query(PARAMS).code) == ("undefined", 111222)
        status, told = one.call(PARAMS)
        assert status == "INTERNAL"
        assert "bug" not in told
        rest = one.get(REST_PARAMS)
        assert (rest.status_code, rest.json()["code"]) == (500, 13)
        assert "ZeroDivision" not in rest.text
        assert one.get("/cosmos/bank/v1beta1/supply").status_code == 200
        assert one.call("/cosmos.bank.v1beta1.Query/TotalSupply") == ("OK", "")
        assert one.panics() == {"query": 2, "grpc": 1, "rest": 1}
        driver.next_block()
    finally:
        one.api.stop()


def test_queries_that_hang_hold_up_no_block() -> None:
    driver = chain(blocks=1)
    app: Any = driver.apps[0]
    release, entered = threading.Event(), threading.Semaphore(0)

    def hang(ctx: Any, state: Any, request: Any) -> Any:
        entered.release()
        release.wait(60)
        return message_class("cosmos.bank.v1beta1.QueryParamsResponse")()

    app.queries.add({PARAMS: hang})
    one = serve(driver)
    askers = [threading.Thread(target=one.get, args=(REST_PARAMS,)) for _ in range(api_server.WORKERS + 2)]
    try:
        for asker in askers:
            asker.start()
        for _ in range(api_server.WORKERS):
            assert entered.acquire(timeout=30)
        height = driver.height
        for _ in range(3):
            driver.next_block()
        assert driver.height == height + 3
        assert one.get("/health").json() == {"status": "ok", "height": str(height + 3)}
    finally:
        release.set()
        for asker in askers:
            asker.join(30)
        one.api.stop()


class Many(KVReader):
    """A store of ``count`` entries that counts what is read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read = 0

    def get(self, key: bytes) -> bytes | None:
        raise NotImplementedError

    def has(self, key: bytes) -> bool:
        raise NotImplementedError

    def iterate(self, start: bytes | None = None, end: bytes | None = None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for at in range(self.count):
            self.read += 1
            yield b"p" + at.to_bytes(4, "big"), b""


@pytest.mark.parametrize(
    "page", [{}, {"count_total": True, "limit": 1}, {"limit": (1 << 64) - 1}, {"offset": MAX_WALK, "limit": 5}, {"reverse": True, "offset": 7}]
)
def test_one_page_passes_a_bounded_number_of_entries(page: dict[str, Any]) -> None:
    request = message_class("cosmos.base.query.v1beta1.PageRequest")(**page)
    store = Many(MAX_WALK * 3)
    found, answer = paginate(store, b"p", request, lambda key, _: key)
    assert store.read <= MAX_WALK + 1
    assert len(found) <= MAX_LIMIT
    assert answer.next_key
    assert answer.total == 0
    nothing, gone_on = paginate(Many(MAX_WALK * 3), b"p", request, lambda key, _: key, lambda *_: False)
    assert nothing == []
    assert gone_on.next_key


def letters(**page: Any) -> tuple[str, bytes]:
    """Entries and next key of a page over ``a`` to ``f`` between entries of other prefixes."""
    state = State(EmptyView(), ("bank",))
    store = state.store("bank")
    for key in (b"oz", *(b"p" + bytes([letter]) for letter in b"abcdef"), b"qa"):
        store.set(key, b"v")
    found, answer = paginate(store, b"p", message_class("cosmos.base.query.v1beta1.PageRequest")(**page), lambda key, _: key.decode())
    return "".join(found), answer.next_key


def test_a_page_begins_with_the_entry_of_its_key_in_either_direction() -> None:
    assert letters(key=b"c", limit=2) == ("cd", b"e")
    assert letters(key=b"c", limit=2, reverse=True) == ("cb", b"a")
    assert letters(limit=2, reverse=True) == ("fe", b"d")
    for reverse in (False, True):
        seen, key = letters(limit=2, reverse=reverse)
        while key:
            more, key = letters(limit=2, reverse=reverse, key=key)
            seen += more
        assert seen == ("fedcba" if reverse else "abcdef"), "following next_key nothing is left out and nothing comes twice"


def test_a_page_has_a_key_or_an_offset(served: Served) -> None:
    both = message_class("cosmos.base.query.v1beta1.PageRequest")(key=b"wei", offset=1)
    request = message_class("cosmos.bank.v1beta1.QueryTotalSupplyRequest")(pagination=both)
    status, told = served.call("/cosmos.bank.v1beta1.Query/TotalSupply", request.SerializeToString())
    assert status == "INVALID_ARGUMENT"
    assert "either offset or key is expected, got both" in told


def test_a_raw_subspace_is_bounded(served: Served) -> None:
    found = served.driver.query("/store/bank/subspace", b"\x02")
    pairs = message_class("cosmos.store.internal.kv.v1beta1.Pairs").FromString(found.value)
    assert 0 < len(pairs.pairs) <= MAX_SUBSPACE_ENTRIES
    assert all(pair.key.startswith(b"\x02") for pair in pairs.pairs)


def test_abci_paths_may_leave_their_first_slash_out(served: Served) -> None:
    key = b"\x02\x14" + KEYS[0].public_key.address + b"wei"
    paths = {"store/bank/key": key, "store/bank/subspace": b"\x02", "store/nothing/key": key, "app/version": b"", "p2p/filter/id/x": b""}
    for path, data in paths.items():
        assert served.driver.query(path, data) == served.driver.query("/" + path, data), path
    proven = served.driver.query("store/bank/key", key, prove=True)
    assert (proven.code, len(proven.proof_ops.ops)) == (0, 2)
    assert proven.value
    assert served.driver.query("//store/bank/key", key).code == 6


def test_a_query_cannot_ask_for_queries_without_end(served: Served) -> None:
    path = "/cosmos.base.tendermint.v1beta1.Service/ABCIQuery"
    inner = message_class("cosmos.base.tendermint.v1beta1.ABCIQueryRequest")(path=path)
    status, told = served.call(path, inner.SerializeToString())
    assert status == "INVALID_ARGUMENT"
    assert "unsupported ABCI query path" in told


@pytest.mark.parametrize("raw", [b"{", b'{"tx_bytes":"AA==","tx_bytes":"AA=="}', b"[" * 100_000, b"\xff\xfe", b'{"tx_bytes":NaN}', b'"text"'])
def test_a_bad_body_is_refused_with_the_sdks_error_form(served: Served, raw: bytes) -> None:
    answer = httpx.post(f"{served.rest}/cosmos/tx/v1beta1/simulate", content=raw, timeout=30)
    assert (answer.status_code, sorted(answer.json())) == (400, ["code", "details", "message"])
    assert answer.json()["code"] == 3


def test_a_body_that_is_too_large_is_refused_while_it_comes(served: Served) -> None:
    host, port = served.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST /cosmos/tx/v1beta1/simulate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        sent = 0
        try:
            while sent < 64 << 20:
                connection.sendall(b"x" * (1 << 16))
                sent += 1 << 16
        except OSError:
            pass
        assert sent < 64 << 20
    assert served.get("/health").status_code == 200


def test_huge_headers_and_paths_are_refused(served: Served) -> None:
    with contextlib.suppress(httpx.TransportError):  # closed while the request was still being written
        assert served.get(REST_PARAMS, headers={"x-long": "a" * (1 << 20)}).status_code == 400
    assert served.get(f"/cosmos/bank/v1beta1/balances/{'a' * 30_000}").status_code == 400
    assert served.get(REST_PARAMS).status_code == 200


def test_a_grpc_message_above_the_limit_is_refused(served: Served) -> None:
    status, _ = served.call("/cosmos.tx.v1beta1.Service/TxDecode", b"\x0a" + b"\x80\x80\x80\x06" + b"x" * (12 << 20))
    assert status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_gives_the_file_of_every_service_it_lists(served: Served, version: str) -> None:
    with grpc.insecure_channel(served.grpc) as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class(f"grpc.reflection.{version}.ServerReflectionResponse").FromString,
        )
        request = message_class(f"grpc.reflection.{version}.ServerReflectionRequest")
        [listed] = ask(iter([request(list_services="")]))
        names = [service.name for service in listed.list_services_response.service]
        assert {"cosmos.bank.v1beta1.Query", "cosmos.reflection.v1.ReflectionService", f"grpc.reflection.{version}.ServerReflection"} <= set(names)
        for name, answer in zip(names, ask(iter([request(file_containing_symbol=name) for name in names])), strict=True):
            assert answer.file_descriptor_response.file_descriptor_proto, name


def test_cors_is_off_unless_asked_for(served: Served) -> None:
    origin = {"Origin": "https://wallet.example"}
    assert "access-control-allow-origin" not in served.get(REST_PARAMS, headers=origin).headers
    open_to_all = serve(chain(blocks=1), **{"enabled-unsafe-cors": True})
    try:
        assert open_to_all.get(REST_PARAMS, headers=origin).headers["access-control-allow-origin"] == "*"
        asked = httpx.options(open_to_all.rest + REST_PARAMS, headers={**origin, "Access-Control-Request-Method": "GET"})
        assert asked.status_code == 200
    finally:
        open_to_all.api.stop()


def test_the_servers_listen_on_loopback_by_default() -> None:
    assert APP_DEFAULTS["grpc"]["address"].startswith("127.0.0.1:")
    assert APP_DEFAULTS["api"]["address"].startswith("tcp://127.0.0.1:")


def test_openapi_describes_every_route(served: Served) -> None:
    document = served.get("/swagger/openapi.json").json()
    assert document["openapi"].startswith("3.0")
    operations = [operation for verbs in document["paths"].values() for operation in verbs.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, verbs in document["paths"].items():
        named = {part.strip("{}") for part in path.split("/") if part.startswith("{")}
        for operation in verbs.values():
            assert {one["name"] for one in operation["parameters"] if one["in"] == "path"} == named, path
    references = set(_references(document))
    assert {reference.rsplit("/", 1)[1] for reference in references} <= set(document["components"]["schemas"])
    balances = document["paths"]["/cosmos/bank/v1beta1/balances/{address}"]["get"]
    assert {"pagination.limit", "pagination.key", "resolve_denom"} <= {one["name"] for one in balances["parameters"]}
    page = served.get("/swagger/")
    assert "/cosmos/bank/v1beta1/balances/{address}" in page.text


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
