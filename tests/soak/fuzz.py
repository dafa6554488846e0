"""Fuzzing of everything that reads bytes from outside: mutated valid inputs, by bytes and by structure, for a time; then what must hold of each.

A finding ends the run: an error that no rule raises, a difference between two readers, or a call that takes longer than ``HANG_S``.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import hashlib
import json
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from chain.abci.framing import FrameError, FrameReader
from chain.abci.server import AbciServer
from chain.application import Settings
from chain.codec.json import loads
from chain.codec.registry import message_class
from chain.codec.varint import delimited, uvarint
from chain.coins import parse_coins, parse_int, to_text
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.module import GenesisError
from chain.tx.build import Signer, build_tx
from chain.tx.decode import decode_tx
from chain.tx.execution import Executor
from genesis import build, document
from tests.simulation.generate import Generator
from tests.simulation.generate import genesis as simulated
from tests.simulation.imported import genesis_of
from tests.simulation.processes import VARIANTS
from tests.simulation.run import Run
from tests.simulation.world import World
from tests.support import CHAIN_ID, FEE, GAS, KEYS, chain, genesis_document, send, text

FUZZ_S = 600
HANG_S: Final = 5
MAX_BYTES: Final = 20_000
AMINO: Final = 127


class Hang(BaseException):
    """A call took too long."""


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], None]]:
    """Gives what to call before each input; a call that then takes ``HANG_S`` of processor time raises Hang, a process that is stuck in C ends."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    previous = signal.signal(signal.SIGPROF, ring)
    at = 0.0

    def begin() -> None:
        nonlocal at
        now = time.monotonic()
        if now - at > 1:  # arming costs more than most inputs do
            faulthandler.dump_traceback_later(60, exit=True)
            at = now
        signal.setitimer(signal.ITIMER_PROF, HANG_S)

    try:
        yield begin
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, previous)


def mutate(choose: random.Random, seeds: list[bytes]) -> bytes:
    """Some bytes near a seed: flipped, cut, repeated, spliced, or random."""
    data = bytearray(choose.choice(seeds))
    for _ in range(choose.randrange(1, 6)):
        kind = choose.randrange(5)
        at = choose.randrange(len(data) + 1)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << choose.randrange(8)
        elif kind == 1:
            del data[at : at + choose.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = choose.randbytes(choose.randrange(1, 12))
        elif kind == 3:
            data[at:at] = data[: choose.randrange(1, 60)] * choose.randrange(1, 4)
        else:
            other = choose.choice(seeds)
            data[at:] = other[choose.randrange(len(other) + 1) :]
    return bytes(data[:MAX_BYTES])


# --- protobuf by structure ------------------------------------------------------------------------------------------------

Fields = list[tuple[int, int, Any]]  # number, wire type, int or bytes


def split_fields(raw: bytes) -> Fields | None:
    """The fields of a message, or None for bytes that are none."""
    found: Fields = []
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if at < 0 or tag >> 3 == 0:
            return None
        if tag & 7 == 0:
            value, at = _varint(raw, at)
            if at < 0:
                return None
            found.append((tag >> 3, 0, value))
            continue
        size = {1: 8, 5: 4}.get(tag & 7, -1)
        if tag & 7 == 2:
            size, at = _varint(raw, at)
        if at < 0 or size < 0 or at + size > len(raw):
            return None
        found.append((tag >> 3, tag & 7, raw[at : at + size]))
        at += size
    return found


def join_fields(fields: Fields) -> bytes:
    out = bytearray()
    for number, kind, value in fields:
        out += uvarint(number << 3 | kind)
        if kind == 0:
            out += uvarint(value)
        else:
            out += (uvarint(len(value)) if kind == 2 else b"") + value
    return bytes(out)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            return 0, -1
        value |= (raw[at] & 0x7F) << shift
        at += 1
        if raw[at - 1] < 0x80:
            return value, at
    return 0, -1


NUMBERS: Final = (0, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
BYTES: Final = (b"", b"0", b"-1", b"+1", b"01", b"1" * 300, b"wei", b"\x00", b"\xff", "é".encode(), b"/", b"st1", b"1e3", bytes(64), b" 1")


def mutate_fields(choose: random.Random, raw: bytes, depth: int = 0) -> bytes:
    """A message with one thing changed at some depth, its lengths right: a field more, less, elsewhere, of another kind, number or value."""
    fields = split_fields(raw)
    if not fields or depth > 12:
        return choose.choice([raw + b"\x00", raw[:-1], choose.choice(BYTES)])
    at = choose.randrange(len(fields))
    number, kind, value = fields[at]
    if kind == 2 and value and choose.random() < 0.75:
        inner = mutate_fields(choose, value, depth + 1) if split_fields(value) else _text(choose, value)
        fields[at] = (number, kind, inner)
        return join_fields(fields)
    match choose.randrange(8):
        case 0:
            fields.insert(choose.randrange(len(fields) + 1), fields[at])
        case 1:
            del fields[at]
        case 2:
            choose.shuffle(fields)
        case 3:
            fields[at] = (choose.choice([1, 2, 3, 4, 5, 15, 16, 1023, 1024, 2047, 2**29 - 1]), kind, value)
        case 4:
            fields.insert(choose.randrange(len(fields) + 1), (choose.randrange(1, 2100), 0, choose.choice(NUMBERS)))
        case 5:
            fields[at] = (number, 2, choose.choice(BYTES)) if kind == 0 else (number, 0, choose.choice(NUMBERS))
        case 6:
            fields[at] = (number, kind, choose.choice(NUMBERS) if kind == 0 else choose.choice(BYTES) if kind == 2 else value)
        case _:
            whole = join_fields(fields)
            return whole[: choose.randrange(len(whole) + 1)] + uvarint(choose.choice(NUMBERS)) + whole[choose.randrange(len(whole) + 1) :]
    return join_fields(fields)


def _text(choose: random.Random, value: bytes) -> bytes:
    changed = bytearray(value)
    at = choose.randrange(len(changed))
    match choose.randrange(4):
        case 0:
            changed[at] = choose.randrange(256)
        case 1:
            del changed[at]
        case 2:
            changed.insert(at, choose.randrange(256))
        case _:
            return choose.choice(BYTES)
    return bytes(changed)


# --- the targets ----------------------------------------------------------------------------------------------------------


def run(make: Callable[[], bytes], target: Callable[[bytes], Any], expected: tuple[type[BaseException], ...]) -> dict[str, Any]:
    """Feed ``target`` what ``make`` makes for ``FUZZ_S``; anything but ``expected`` is a finding. Raises SystemExit for one."""
    until = time.monotonic() + FUZZ_S
    runs = refused = 0
    slowest_s = 0.0
    with watched() as begin:
        while time.monotonic() < until:
            data = make()
            begin()
            started = time.process_time()
            try:
                target(data)
            except expected:
                refused += 1
            except BaseException as error:
                print(f"a finding: {type(error).__name__}: {error}; input {data.hex()}", flush=True)
                raise
            slowest_s = max(slowest_s, time.process_time() - started)
            runs += 1
    return {"seconds": FUZZ_S, "runs": runs, "refused": refused, "slowest_ms": round(slowest_s * 1000, 1), "findings": 0}


def seeds_of_transactions() -> list[bytes]:
    """Signed transactions of many shapes: both key types, sign modes, several messages and signers, everything that is optional."""
    found = [send(2, 3), send(0, 3, 10**20, sequence=300), send(1, 4, memo="hello", timeout_height=9), send(3, 2, mode=AMINO), send(4, 5, gas=2**62)]
    addresses = [text(key) for key in KEYS]
    coin = [{"denom": "wei", "amount": "5"}]
    bank = "cosmos.bank.v1beta1"
    multi = message_class(f"{bank}.MsgMultiSend")()
    multi.inputs.add(address=addresses[2], coins=coin)
    multi.outputs.add(address=addresses[3], coins=coin)
    sends = [message_class(f"{bank}.MsgSend")(from_address=addresses[at], to_address=addresses[5], amount=coin) for at in (2, 3)]
    burn = message_class(f"{bank}.MsgBurn")(from_address=addresses[2], amount=coin)
    signers = {at: Signer(KEYS[at].public_key, 0, at) for at in (2, 3)}
    for messages, who in (([multi], [2]), ([burn], [2]), (sends, [2, 3]), ([*sends, multi, burn], [2, 3])):
        made = build_tx(messages, fee=FEE, gas_limit=GAS, signers=[signers[at] for at in who])
        found.append(made.sign([KEYS[at] for at in who], CHAIN_ID))
    return found


def fuzz_transactions(seed: int) -> dict[str, Any]:
    """Decoding, by the plain decoder and the fast reader, which must agree; then CheckTx with and without the twin, which must answer alike."""
    choose = random.Random(seed)
    seeds = seeds_of_transactions()
    fast, plain = (chain(settings=[Settings(fast_sends=on)]).apps[0] for on in (True, False))
    assert isinstance(fast.executor, Executor)  # type: ignore[attr-defined]
    request = message_class("tendermint.abci.RequestCheckTx")
    reached = {"decoded": 0, "read_fast": 0}

    def make() -> bytes:
        data = choose.choice(seeds)
        for _ in range(choose.choice((1, 1, 1, 2, 4))):
            data = mutate_fields(choose, data)
        return mutate(choose, [data, *seeds])[:MAX_BYTES] if choose.random() < 0.2 else data[:MAX_BYTES]

    def target(raw: bytes) -> None:
        quick = fast._twin.read(raw, hashlib.sha256(raw).digest())  # type: ignore[attr-defined]
        reached["read_fast"] += quick is not None
        answers = [one.check_txs([request(tx=raw)])[0] for one in (fast, plain)]
        given, wanted = (answer if isinstance(answer, bytes) else answer.SerializeToString() for answer in answers)
        if given != wanted:
            raise ArithmeticError(f"CheckTx answers {given.hex()} with the twin and {wanted.hex()} without")
        if fast.executor.panics or plain.executor.panics:  # type: ignore[attr-defined]
            raise ArithmeticError("a transaction raised what no rule raises")
        tx = decode_tx(raw)  # whatever the fast reader takes, the plain decoder must take
        reached["decoded"] += 1
        if quick is not None:
            for name in ("raw", "hash", "body_bytes", "auth_info_bytes", "signatures", "signers", "fee", "gas_limit", "payer", "granter", "messages"):
                if getattr(quick, name) != getattr(tx, name):
                    raise ArithmeticError(f"the fast reader reads {name} differently")

    def whole(raw: bytes) -> None:
        try:
            target(raw)
        except AppError:
            if fast._twin.read(raw, hashlib.sha256(raw).digest()) is not None:  # type: ignore[attr-defined]
                raise ArithmeticError("the fast reader takes what the plain decoder refuses") from None
            raise

    return run(make, whole, (AppError,)) | reached


def fuzz_frames(seed: int) -> dict[str, Any]:
    """The frame reader in pieces against the whole; every so often the same bytes to a real server over its socket, which must live on."""
    choose = random.Random(seed)
    request = message_class("tendermint.abci.Request")
    kinds: list[Any] = [request(echo={"message": "hello"}), request(flush={}), request(info={"version": "0.38"}), request(list_snapshots={})]
    kinds += [request(query={"path": "/store/bank/key", "data": b"\x00wei"}), request(check_tx={"tx": send(2, 3)})]
    kinds += [request(load_snapshot_chunk={"height": 5}), request(process_proposal={"txs": [send(2, 3)], "height": 2})]
    kinds += [request(prepare_proposal={"txs": [send(2, 3)], "max_tx_bytes": 1000}), request(apply_snapshot_chunk={"chunk": b"x"})]
    frames = [uvarint(one.ByteSize()) + one.SerializeToString() for one in kinds]
    served = {"connections": 0, "closed": 0}

    def make() -> bytes:
        parts = [choose.choice(frames) for _ in range(choose.randrange(1, 6))]
        if choose.random() < 0.6:
            at = choose.randrange(len(parts))
            body = mutate_fields(choose, choose.choice(kinds).SerializeToString())
            parts[at] = delimited(body)
        data = b"".join(parts)
        return mutate(choose, [data, *frames]) if choose.random() < 0.5 else data

    def read(pieces: list[bytes]) -> tuple[list[bytes], int, str]:
        reader = FrameReader(1 << 16)
        found: list[bytes] = []
        try:
            for piece in pieces:
                found += reader.feed(piece)
        except FrameError as error:
            return [], 0, str(error)
        return found, reader.pending_bytes, ""

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/abci.sock"
        app = chain().apps[0]
        dead: list[BaseException] = []
        server = AbciServer(app, f"unix://{path}", on_fatal=dead.append)
        server.start()

        def talk(data: bytes, until: bytes, patience_s: float) -> bytes:
            with socket.socket(socket.AF_UNIX) as one:
                one.settimeout(patience_s)
                one.connect(path)
                answer = b""
                with contextlib.suppress(ConnectionError, TimeoutError):
                    one.sendall(data)
                    while until not in answer and (piece := one.recv(1 << 16)):
                        answer += piece
                return answer

        def target(data: bytes) -> None:
            whole = read([data])
            cuts = sorted(choose.randrange(len(data) + 1) for _ in range(choose.randrange(6)))
            parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            if not whole[2] and read(parts) != whole:
                raise ArithmeticError("the reader depends on how its bytes come")
            if bool(read(parts)[2]) != bool(whole[2]):
                raise ArithmeticError("the reader refuses by how its bytes come")
            if choose.random() < 0.02:
                served["connections"] += 1
                talk(data + ALIVE, b"still here", 0.1)
                if dead:  # a consensus call that may stop a node did; the next server goes on
                    served["closed"] += 1
                    dead.clear()
                    server._dead = False
                if b"still here" not in talk(ALIVE, b"still here", HANG_S):
                    raise ArithmeticError("the server answers no more")
            if whole[2]:
                raise FrameError(whole[2])

        try:
            return run(make, target, (FrameError,)) | served
        finally:
            server.stop()


_ECHO: Final = message_class("tendermint.abci.Request")(echo={"message": "still here"}).SerializeToString()
ALIVE: Final = delimited(_ECHO)


def fuzz_amounts(seed: int) -> dict[str, Any]:
    """What is accepted is written and read again as the same."""
    choose = random.Random(seed)
    seeds = [
        b"100wei,5stake",
        b"1" * 80,
        b"-1",
        b"0wei",
        b"7ibc/ABCDEF,1wei",
        b"115792089237316195423570985008687907853269984665640564039457584007913129639935wei",
    ]

    def coins(data: bytes) -> None:
        found = parse_coins(data.decode("latin-1"))
        if parse_coins(to_text(found)) != found:
            raise ArithmeticError("an amount is read as another than it is written")

    def number(data: bytes) -> None:
        found = parse_int(data.decode("latin-1"))
        if parse_int(str(found)) != found or found.bit_length() > 256:
            raise ArithmeticError("a number is read as another than it is written, or has no bound")

    return run(lambda: mutate(choose, seeds), lambda data: (number if data.isdigit() else coins)(data), (AppError,))


def fuzz_addresses(seed: int) -> dict[str, Any]:
    """What is accepted is written again as the same text, in lower case."""
    choose = random.Random(seed)
    seeds = [text(key).encode() for key in KEYS] + [b"st1edp9gkppxzjvcg9nwheh6tp9rsgafatckfdl6m", text(KEYS[0]).upper().encode()]
    seeds += [bech32.encode(bytes(range(size))).encode() for size in (1, 32, 64)]

    def target(data: bytes) -> None:
        shown = data.decode("latin-1")
        if bech32.encode(bech32.decode(shown)) != shown.lower():
            raise ArithmeticError("an address has two forms")

    def make() -> bytes:
        return mutate(choose, seeds) if choose.random() < 0.8 else choose.choice(seeds).swapcase()

    return run(make, target, (AppError,))


ODD: Final[tuple[Any, ...]] = (
    None,
    "",
    "x",
    "-1",
    "0",
    "1" * 400,
    "1.5",
    0,
    -1,
    2**64,
    1.5,
    True,
    [],
    {},
    [None],
    {"a": None},
    "\u0000",
    "é",
    "9999-99-99T00:00:00Z",
)


def mutate_json(choose: random.Random, value: Any) -> None:
    """One change somewhere below: a value replaced, removed, doubled, or put elsewhere."""
    while True:
        keys = [*value] if isinstance(value, dict) else [*range(len(value))]
        if not keys:
            return
        key = choose.choice(keys)
        if isinstance(value[key], (dict, list)) and value[key] and choose.random() < 0.85:
            value = value[key]
            continue
        match choose.randrange(4):
            case 0:
                value[key] = copy.deepcopy(choose.choice(ODD))
            case 1:
                del value[key]
            case 2 if isinstance(value, list):
                value.append(copy.deepcopy(value[key]))
            case 2:
                value[f"{key}x"] = copy.deepcopy(value[key])
            case _:
                value[key] = copy.deepcopy(value[choose.choice(keys)])
        return


def fuzz_genesis(seed: int) -> dict[str, Any]:
    """Validation of documents changed by structure and by bytes; some of those that pass begin a chain, which may refuse but not fail."""
    choose = random.Random(seed)
    app: Any = chain().apps[0]
    originals = [genesis_document(app), lived_genesis(seed)]
    for original in originals:
        build.validate(original, app.modules)
    texts = [json.dumps(original).encode() for original in originals]
    passed = {"valid": 0, "begun": 0}

    def make() -> bytes:
        if choose.random() < 0.3:
            return mutate(choose, texts)
        changed = copy.deepcopy(choose.choice(originals))
        for _ in range(choose.choice((1, 1, 2, 5))):
            mutate_json(choose, changed)
        return json.dumps(changed).encode()

    def target(data: bytes) -> None:
        found = loads(data)
        if not isinstance(found, dict):
            return
        made = document.normalise(found)
        build.validate(made, app.modules)
        passed["valid"] += 1
        if choose.random() < 0.02:
            begin(made)
            passed["begun"] += 1

    return run(make, target, (AppError, GenesisError)) | passed


def lived_genesis(seed: int) -> dict[str, Any]:
    """The export of a chain on which all modules were used."""
    made = simulated(seed)
    running = Run(made, VARIANTS["native"].options(Path())[0])
    generator = Generator(World(running.driver, random.Random(seed)))
    for _ in range(12):
        running.block(generator.block(40))
    found = made | genesis_of(running.app, running.driver, running.app.export())
    running.close()
    return document.normalise(found)


def begin(made: dict[str, Any]) -> None:
    """InitChain of a fresh application with a genesis that validation let through."""
    from chain.app import build_application
    from chain.store.kv import MemoryBackend

    fresh = build_application(MemoryBackend())
    request = message_class("tendermint.abci.RequestInitChain")(
        chain_id=made["chain_id"],
        initial_height=int(made["initial_height"]),
        app_state_bytes=json.dumps(made["app_state"]).encode(),
        consensus_params=document.consensus_params(made),
    )
    request.time.FromJsonString(made["genesis_time"])
    fresh.init_chain(request)
