"""Every REST path and gRPC method of both, asked of simd and of our node over the same state: status, JSON, error bodies, headers.

What may differ, and why, is in ``interface_cases``. Everywhere a caller's mistake is InvalidArgument (3, HTTP 400) here, also where simd says
Unknown or Internal (HTTP 500): a node is not broken because a request is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from chain.api import blocks
from chain.api.comet import CometClient
from chain.codec.json import dumps
from chain.codec.registry import POOL, message_class
from chain.crypto import address as bech32
from tests.interop import interface_cases as cases
from tests.interop.pair import KEYS, NAMES, Side, neutral, pair

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

VOLATILE = frozenset(
    [
        "time",
        "timestamp",
        "app_hash",
        "hash",
        "last_commit_hash",
        "data_hash",
        "validators_hash",
        "next_validators_hash",
        "consensus_hash",
        "last_results_hash",
        "signature",
        "txhash",
        "gas_used",
        "voting_power",
        "update_time",
        "block_height",
    ]
)
NOBODY = b"\x07" * 20


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def known(side: Side) -> dict[str, Any]:
    """What the placeholders of the cases stand for on one side."""
    a = side.address("a")
    found: dict[str, Any] = {name: side.address(name) for name in NAMES if name != "val"}
    found.update(
        val=side.address("val", "valoper"),
        val_account=side.address("val"),
        nobody=bech32.encode(NOBODY, side.prefix),
        nobody_val=bech32.encode(NOBODY, side.prefix + "valoper"),
        wrong_prefix=bech32.encode(NOBODY, "st" if side.prefix == "cosmos" else "cosmos"),
        bad_checksum=a[:-1] + ("p" if a[-1] == "q" else "q"),
        a_bytes=_text(KEYS["a"].public_key.address),
        first=side.hash("first"),
        first_lower=side.hash("first").lower(),
        poor=side.hash("poor"),
        h=side.heights["first"],
        first_key=_text(b"abc"),
        key=_text(b"def"),
        last_key=_text(b"xyz"),
        balance_key=_text(b"\x02\x14" + KEYS["c"].public_key.address + b"xyz"),
        first_raw=_text(side.raw["first"]),
        second_raw=_text(side.raw["second"]),
        next_raw=_text(side.tx("c", "d", 1, 0)),
        stale_raw=_text(side.tx("a", "b", 1, 0, memo="stale")),
        too_much_raw=_text(side.tx("c", "d", 10**12, 0)),
        first_json=dumps(blocks.tx_of(side.raw["first"])).decode(),
    )
    return found


class Asked:
    """One side, asked; answers come back in neutral words."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.known = known(side)
        comet = CometClient(side.rpc)
        [validator] = comet.call("validators")["validators"]
        comet.close()
        raw = bytes.fromhex(validator["address"])
        self._words = {
            validator["pub_key"]["value"]: "<validator key>",
            validator["address"]: "<validator>",
            _text(raw): "<validator>",
            bech32.encode(raw, side.prefix + "valcons"): "<validator>",
        }
        self._heights = {str(height): f"<height of {name}>" for name, height in side.heights.items()}
        for name, tx in {**side.raw, "next": base64.b64decode(self.known["next_raw"])}.items():
            self._words[_text(tx)] = f"<tx {name}>"
            self._words[hashlib.sha256(tx).hexdigest().upper()] = f"<hash {name}>"
            for signature in blocks.tx_of(tx).signatures:
                self._words[_text(signature)] = f"<signature {name}>"

    def neutral(self, value: Any) -> Any:
        text = json.dumps(value)
        for word, meaning in self._words.items():
            text = text.replace(word, meaning)
        return json.loads(neutral(text))

    def rest(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
        """(status, body, headers that count) of one request."""
        content = None if body is None else body.format(**self.known)
        given = {name: value.format(**self.known) for name, value in (headers or {}).items()}
        answer = httpx.request(method, self.side.rest + path.format(**self.known), content=content, headers=given, timeout=30)
        try:
            value = answer.json()
        except ValueError:
            value = answer.text
        counted = {name: answer.headers[name] for name in ("content-type", f"grpc-metadata-{cases.HEIGHT}") if name in answer.headers}
        return answer.status_code, self.neutral(self._scrubbed(value)), counted

    def grpc(self, path: str, raw: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[str, Any, str | None]:
        """(status name, message as JSON or error text, height header) of one call."""
        given = tuple((name, value.format(**self.known)) for name, value in metadata)
        with grpc.insecure_channel(self.side.grpc, options=[("grpc.max_receive_message_length", 64 << 20)]) as channel:
            call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
            try:
                answer, done = call.with_call(raw, metadata=given, timeout=30)
            except grpc.RpcError as error:
                return error.code().name, self.neutral(error.details()), dict(error.initial_metadata()).get(cases.HEIGHT)
            service, _, name = path.lstrip("/").partition("/")
            cls = message_class(POOL.FindServiceByName(service).FindMethodByName(name).output_type.full_name)
            height = dict(done.initial_metadata()).get(cases.HEIGHT)
            return "OK", self.neutral(self._scrubbed(json.loads(dumps(cls.FromString(answer))))), height

    def _scrubbed(self, value: Any, name: str = "", inside: str = "") -> Any:
        if name in VOLATILE and isinstance(value, str) and value:
            return f"<{name}>"
        if name == "height" and (value in self._heights or inside == "last_commit"):
            return self._heights[value] if inside != "last_commit" else "<height before>"
        if isinstance(value, dict):
            return {key: self._scrubbed(item, key, name) for key, item in value.items()}
        if isinstance(value, list):
            return [self._scrubbed(item) for item in value]
        return value

    def services(self, reflection: str) -> frozenset[str]:
        """What the reflection service lists."""
        with grpc.insecure_channel(self.side.grpc) as channel:
            ask = channel.stream_stream(
                f"/{reflection}/ServerReflectionInfo",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            answer = next(iter(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))))
            return frozenset(service.name for service in answer.list_services_response.service)


def differences(theirs: Any, ours: Any, at: str = "") -> list[str]:
    """Places where two JSON values differ: other type, other keys or their order, other length, other value."""
    if type(theirs) is not type(ours):
        return [at]
    if isinstance(theirs, dict):
        if list(theirs) != list(ours):
            return [at]
        return [place for key in theirs for place in differences(theirs[key], ours[key], f"{at}.{key}")]
    if isinstance(theirs, list):
        if len(theirs) != len(ours):
            return [at]
        return [place for number, pair in enumerate(zip(theirs, ours, strict=True)) for place in differences(*pair, f"{at}[{number}]")]
    return [] if theirs == ours else [at]


def is_error(body: Any) -> bool:
    return isinstance(body, dict) and list(body) == ["code", "message", "details"]


def check(what: str, theirs: tuple[int, Any, dict[str, str]], ours: tuple[int, Any, dict[str, str]], *, own_words: bool = False) -> None:
    """Raise AssertionError unless two REST answers are alike under the rules of this file."""
    (their_status, their_body, their_headers), (our_status, our_body, our_headers) = theirs, ours
    shown = f"{what}\nsimd: {their_status} {json.dumps(their_body)[:600]}\nours: {our_status} {json.dumps(our_body)[:600]}"
    if is_error(their_body):
        assert is_error(our_body), shown
        mistake = (their_status, their_body["code"]) in ((500, 2), (500, 13)) and (our_status, our_body["code"]) == (400, 3)
        assert mistake or (our_status, our_body["code"]) == (their_status, their_body["code"]), shown
        assert our_body["details"] == their_body["details"] == [], shown
        assert (our_body["message"] != their_body["message"]) is own_words, shown
        # A body may be refused before the state is looked at, which is what the height header of an error says.
        assert what.startswith("POST") or sorted(our_headers) == sorted(their_headers), f"{shown}\nsimd: {their_headers}\nours: {our_headers}"
        assert our_headers["content-type"] == their_headers["content-type"], shown
        return
    assert not own_words, shown
    assert our_status == their_status, shown
    assert differences(their_body, our_body) == [], f"{shown}\nat: {differences(their_body, our_body)}"
    if "/txs" not in what or "POST" not in what:  # simd answers a broadcast without the header: it never reaches its application
        assert sorted(our_headers) == sorted(their_headers), shown


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Asked, Asked]]:
    with pair(tmp_path_factory.mktemp("pair")) as sides:
        yield Asked(sides[0]), Asked(sides[1])


def test_rest_answers_as_simd_does(both: tuple[Asked, Asked]) -> None:
    theirs, ours = both
    for path in cases.SAME:
        check(f"GET {path}", theirs.rest("GET", path), ours.rest("GET", path))
    for path, body in cases.POSTS_SAME:
        check(f"POST {path} {body}", theirs.rest("POST", path, body), ours.rest("POST", path, body))


def test_rest_refuses_what_simd_refuses_in_words_of_its_own(both: tuple[Asked, Asked]) -> None:
    theirs, ours = both
    for path in cases.OWN_WORDS:
        check(f"GET {path}", theirs.rest("GET", path), ours.rest("GET", path), own_words=True)
    for path, body in cases.POSTS_OWN_WORDS:
        check(f"POST {path} {body}", theirs.rest("POST", path, body), ours.rest("POST", path, body), own_words=True)


def test_rest_differs_from_simd_only_where_that_is_explained(both: tuple[Asked, Asked]) -> None:
    theirs, ours = both
    asked: list[tuple[str, str, str | None, str, str]] = [("GET", path, None, *how) for path, how in cases.DIFFERENT.items()]
    asked += [("POST", path, body, *how) for (path, body), how in cases.POSTS_DIFFERENT.items()]
    for method, path, body, pattern, reason in asked:
        their_answer, our_answer = theirs.rest(method, path, body), ours.rest(method, path, body)
        shown = f"{method} {path} {body}\nsimd: {their_answer}\nours: {our_answer}"
        assert our_answer[0] in (200, 400, 501), shown
        places = differences(their_answer[1], our_answer[1])
        if not pattern:
            assert their_answer[:2] != our_answer[:2], f"no difference any more: {shown}"
            continue
        assert their_answer[0] == our_answer[0], shown
        assert places or reason == "two chains", f"no difference any more: {shown}"  # which may stand at the same height
        assert all(re.search(pattern, place) for place in places), f"{shown}\nat: {places}"


def test_the_height_header_works_as_simds_in_rest_and_grpc(both: tuple[Asked, Asked]) -> None:
    theirs, ours = both
    for height in cases.HEIGHTS_SAME + cases.HEIGHTS_OWN_WORDS:
        for name in (cases.HEIGHT, f"Grpc-Metadata-{cases.HEIGHT}"):
            answers = [side.rest("GET", cases.ALL, None, {name: height}) for side in both]
            check(f"GET {name}: {height}", answers[0], answers[1], own_words=height in cases.HEIGHTS_OWN_WORDS)
            if height in cases.HEIGHTS_SAME and (number := int(height.format(**ours.known))):
                assert answers[1][2][f"grpc-metadata-{cases.HEIGHT}"] == str(number)
        path = "/cosmos.bank.v1beta1.Query/AllBalances"
        calls = []
        for side in both:
            request = message_class("cosmos.bank.v1beta1.QueryAllBalancesRequest")(address=side.known["a"])
            calls.append(side.grpc(path, request.SerializeToString(), ((cases.HEIGHT, height),)))
        if height in cases.HEIGHTS_OWN_WORDS:
            assert (calls[0][0], calls[1][0]) == ("UNKNOWN", "INVALID_ARGUMENT"), f"{height}: {calls}"
        else:
            assert calls[0][:2] == calls[1][:2], f"{height}: {calls}"
            assert (calls[0][2] is None) == (calls[1][2] is None), f"{height}: {calls}"
    future = ours.rest("GET", cases.ALL, None, {cases.HEIGHT: "99999999"})[1]["message"]
    assert future.startswith(theirs.rest("GET", cases.ALL, None, {cases.HEIGHT: "99999999"})[1]["message"])


def test_two_height_headers_are_none_as_on_simd(both: tuple[Asked, Asked]) -> None:
    for side in both:
        for second in ("1", "x"):
            status, _, headers = side.rest("GET", cases.ALL, None, {cases.HEIGHT: "1", f"Grpc-Metadata-{cases.HEIGHT}": second})
            assert (status, int(headers[f"grpc-metadata-{cases.HEIGHT}"]) > 1) == (200, True)
            status, _, at = side.grpc("/cosmos.bank.v1beta1.Query/Params", b"", ((cases.HEIGHT, "1"), (cases.HEIGHT, second)))
            assert (status, int(at or 0) > 1) == ("OK", True)


def test_an_error_names_the_height_that_was_looked_at_as_simds_does(both: tuple[Asked, Asked]) -> None:
    for side in both:
        bad = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(address=side.known["a"], denom="1bad").SerializeToString()
        for height, expected in (("1", ("INVALID_ARGUMENT", "1")), ("x", (None, None)), ("99999999", (None, None))):
            status, _, at = side.grpc("/cosmos.bank.v1beta1.Query/Balance", bad, ((cases.HEIGHT, height),))
            assert (status if at else None, at) == expected, (side.side.name, height)


def test_grpc_refuses_bytes_and_methods_it_does_not_know(both: tuple[Asked, Asked]) -> None:
    for path, raw, expected in (
        ("/cosmos.bank.v1beta1.Query/Balance", b"\xff\xff", ("INTERNAL", "INVALID_ARGUMENT")),
        ("/cosmos.bank.v1beta1.Query/Balance", b"", ("INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        ("/cosmos.bank.v1beta1.Query/Nothing", b"", ("UNIMPLEMENTED", "UNIMPLEMENTED")),
        ("/no.such.Service/Nothing", b"", ("UNIMPLEMENTED", "UNIMPLEMENTED")),
    ):
        assert tuple(side.grpc(path, raw)[0] for side in both) == expected


def test_grpc_and_rest_give_the_same_message(both: tuple[Asked, Asked]) -> None:
    for side in both:
        request = message_class("cosmos.tx.v1beta1.GetTxRequest")(hash=side.known["first"])
        status, message, _ = side.grpc("/cosmos.tx.v1beta1.Service/GetTx", request.SerializeToString())
        assert (status, message) == ("OK", side.rest("GET", f"{cases.TX}/txs/{{first}}")[1])


def test_every_method_of_simds_services_is_answered(both: tuple[Asked, Asked]) -> None:
    ours = both[1]
    their_services, our_services = (side.services("grpc.reflection.v1alpha.ServerReflection") for side in both)
    added = {f"stratos.{name}.v1.Query" for name in ("register", "sds", "pot", "settlement", "grant")}
    assert our_services - their_services - added == {"grpc.reflection.v1.ServerReflection", "cosmos.reflection.v1.ReflectionService"} - their_services
    assert added <= our_services
    assert ours.services("grpc.reflection.v1.ServerReflection") == our_services
    listed = ours.grpc("/cosmos.base.reflection.v2alpha1.ReflectionService/GetQueryServicesDescriptor", b"")[1]
    answered = {method["full_query_path"] for service in listed["queries"]["query_services"] for method in service["methods"]}
    missing = {
        f"/{service}/{method.name}"
        for service in our_services & their_services
        if not service.startswith("grpc.")
        for method in POOL.FindServiceByName(service).methods
    } - {_named(path) for path in answered}
    amino = {"/cosmos.tx.v1beta1.Service/TxEncodeAmino", "/cosmos.tx.v1beta1.Service/TxDecodeAmino"}
    assert missing == amino


def _named(path: str) -> str:
    return path.replace("<prefix >", "cosmos")


def test_reflection_describes_interfaces_as_simd_does(both: tuple[Asked, Asked]) -> None:
    path = "/cosmos.base.reflection.v1beta1.ReflectionService/"
    their_names, our_names = (set(side.grpc(path + "ListAllInterfaces", b"")[1]["interface_names"]) for side in both)
    assert {"<prefix >.auth.v1beta1.AccountI", "<prefix >.crypto.PubKey", "<prefix >.base.v1beta1.Msg"} <= our_names & their_names
    for interface in ("cosmos.crypto.PubKey", "cosmos.auth.v1beta1.AccountI", "cosmos.base.v1beta1.Msg"):
        request = message_class("cosmos.base.reflection.v1beta1.ListImplementationsRequest")(interface_name=interface).SerializeToString()
        listed = [set(side.grpc(path + "ListImplementations", request)[1]["implementation_message_names"]) for side in both]
        of_our_own = {"/<prefix >.bank.v1beta1.MsgBurn"}  # SDK 0.50 has the message for modules only
        assert {name for name in listed[1] - listed[0] if "stratos" not in name} <= of_our_own, interface
        assert listed[0] & listed[1], interface
    modes = [side.grpc("/cosmos.base.reflection.v2alpha1.ReflectionService/GetAuthnDescriptor", b"")[1]["authn"]["sign_modes"] for side in both]
    assert all(mode in modes[0] for mode in modes[1])
    config = [side.grpc("/cosmos.base.reflection.v2alpha1.ReflectionService/GetConfigurationDescriptor", b"")[:2] for side in both]
    assert config[0] == config[1]
    files = [side.grpc("/cosmos.reflection.v1.ReflectionService/FileDescriptors", b"")[1]["files"] for side in both]
    shapes = [
        {
            (message["name"], field["name"], field["number"])
            for file in found
            if "/bank/v1beta1/" in file["name"]
            for message in file["message_type"]
            for field in message["field"]
        }
        for found in files
    ]
    assert shapes[0]
    assert shapes[0] <= shapes[1]


def test_head_and_options_and_other_verbs(both: tuple[Asked, Asked]) -> None:
    for verb in ("OPTIONS", "PUT", "DELETE", "PATCH"):
        answers = [side.rest(verb, f"{cases.BANK}/params") for side in both]
        check(verb, answers[0], answers[1])
    # simd has no HEAD; ours answers it as the GET it stands for, which monitors use.
    assert both[1].rest("HEAD", f"{cases.BANK}/params")[0] == 200
