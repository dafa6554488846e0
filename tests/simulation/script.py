"""A history as data. What an operation does is fixed, what depends on its surroundings (sequences, signatures) is made when it runs:
so any part of a history can be left out, and the rest still is one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from chain.codec.json import to_json
from chain.codec.registry import message_class, unpack_any
from chain.errors import AppError


@dataclass(frozen=True)
class Operation:
    """One transaction: ``messages`` are (full name, bytes), ``signers`` numbers of ``world.account``, ``fault`` a name of ``run.FAULTS``
    or empty, ``raw`` the bytes of a transaction that is none. ``granter`` (a number, or -1) pays the fee."""

    name: str
    messages: tuple[tuple[str, bytes], ...] = ()
    signers: tuple[int, ...] = ()
    fault: str = ""
    gas: int = 1_000_000
    amino: bool = False
    granter: int = -1
    raw: bytes = b""

    def decoded(self) -> list[Any]:
        return [message_class(name).FromString(raw) for name, raw in self.messages]


@dataclass(frozen=True)
class Block:
    """One block. Validators are named by consensus address in hex; who is not in the set, or not any more, is passed over.

    ``is_forced``: the proposer takes what CheckTx refused, too. ``failed_rounds``: proposals before the decided one.
    ``evidence``: (validator, how many blocks ago it signed twice). ``imports``: after this block an export is imported elsewhere.
    """

    time_step_s: int = 5
    is_forced: bool = False
    failed_rounds: int = 0
    absent: tuple[str, ...] = ()
    nil: tuple[str, ...] = ()
    evidence: tuple[tuple[str, int], ...] = ()
    imports: bool = False
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True)
class Script:
    """A history from its genesis document on. ``found`` says what went wrong, for people."""

    genesis: dict[str, Any]
    blocks: tuple[Block, ...] = ()
    seed: int = 0
    found: str = ""

    @property
    def operations(self) -> int:
        return sum(len(block.operations) for block in self.blocks)

    def with_blocks(self, blocks: list[Block] | tuple[Block, ...]) -> Script:
        return replace(self, blocks=tuple(blocks))

    def save(self, path: Path) -> None:
        blocks = [_sparse(block) for block in self.blocks]
        document = {"found": self.found, "seed": self.seed, "blocks": blocks, "genesis": self.genesis}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Script:
        document = json.loads(path.read_text("utf-8"))
        return cls(document["genesis"], tuple(map(_block, document["blocks"])), document["seed"], document["found"])


def _sparse(block: Block) -> dict[str, Any]:
    """A block without what is at its default; bytes in hex, and beside them the message as JSON where it has one."""
    shown = {name: value for name, value in asdict(block).items() if value != getattr(Block(), name) and name != "operations"}
    operations = []
    for one in block.operations:
        fields = {name: value for name, value in asdict(one).items() if value != getattr(Operation(""), name)}
        if one.messages:
            fields["messages"] = [{"type": name, "bytes": raw.hex(), "shown": _shown(name, raw)} for name, raw in one.messages]
        if one.raw:
            fields["raw"] = one.raw.hex()
        operations.append(fields)
    return {**shown, "operations": operations}


def _shown(name: str, raw: bytes) -> Any:
    try:
        return to_json(message_class(name).FromString(raw))
    except (AppError, ValueError):
        return None


def _block(document: dict[str, Any]) -> Block:
    fields = dict(document)
    operations = []
    for one in fields.pop("operations"):
        messages = tuple((each["type"], bytes.fromhex(each["bytes"])) for each in one.get("messages", ()))
        rest = {**one, "messages": messages, "signers": tuple(one.get("signers", ())), "raw": bytes.fromhex(one.get("raw", ""))}
        operations.append(Operation(**rest))
    for name in ("absent", "nil"):
        fields[name] = tuple(fields.get(name, ()))
    fields["evidence"] = tuple((address, ago) for address, ago in fields.get("evidence", ()))
    return Block(**fields, operations=tuple(operations))


def types_in(message: Any) -> Iterator[str]:
    """The type of a message and of every message it carries."""
    yield message.DESCRIPTOR.full_name
    for field_, value in message.ListFields():
        if field_.name in ("msgs", "messages") and field_.message_type.full_name == "google.protobuf.Any":
            for wrapped in value:
                with contextlib.suppress(AppError):
                    yield from types_in(unpack_any(wrapped))


@dataclass
class Outcome:
    """What a run came to. ``lines`` are what every process must agree on, one per block."""

    lines: list[list[str]] = field(default_factory=list)
    codes: dict[str, dict[str, int]] = field(default_factory=dict)
    """operation → ``codespace/code`` → transactions with that result in a block, or refused by CheckTx."""
    succeeded: dict[str, int] = field(default_factory=dict)
    """message type → how many were executed: in transactions, by MsgExec, by proposals."""
    attempted: dict[str, int] = field(default_factory=dict)
    """message type → how many were in a transaction, whatever came of it; what proposals and MsgExec carry included."""
    imports: int = 0
    followed: int = 0
    evidence: int = 0
