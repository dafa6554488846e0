"""Draws histories: a genesis document, then block after block of operations, chosen by what the chain says of itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from chain.app import build_application
from chain.cli.genesis import tx_message
from chain.codec.json import to_json
from chain.codec.registry import extension, message_class, option_of
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.errors import AppError
from chain.store.kv import MemoryBackend
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from chain.tx.decode import message_signers_of
from genesis import build, document
from tests.simulation import operations
from tests.simulation.operations import feegrant
from tests.simulation.run import FAULTS
from tests.simulation.script import Block, Operation
from tests.simulation.world import DENOM, FOUNDERS, GOV, Kind, World, account, coin

CHAIN_ID = "simulation-1"
START = "2026-01-01T00:00:00Z"
START_S = 1_767_225_600
FUNDS_WEI = 10**24
VALIDATORS = 6
EVIDENCE_AGE_BLOCKS = 15
FIRST_IMPORT = 5
"""Every history has one import at least, of the block after this one."""
_SIGNER = extension("cosmos.msg.v1.signer")


def genesis(seed: int) -> dict[str, Any]:
    """A document with VALIDATORS validators, FOUNDERS funded accounts of which two vest, and short periods."""
    choose = random.Random(f"genesis {seed}")
    app = build_application(MemoryBackend())
    made = build.default_document(app.modules, CHAIN_ID, START, "simulation")
    funds = (Coin(DENOM, FUNDS_WEI),)
    for number in range(FOUNDERS):
        address = account(number).address
        vesting = None
        if number >= FOUNDERS - 2:
            vesting = build.vesting_account(address, funds, (Coin(DENOM, FUNDS_WEI * 9 // 10),), START_S if number % 2 else 0, START_S + 2000)
        build.add_account(made, address, funds, account=vesting)
    made["app_state"]["genutil"]["gen_txs"] = [to_json(tx_message(_gentx(number, choose))) for number in range(VALIDATORS)]
    evidence = {"max_age_num_blocks": str(EVIDENCE_AGE_BLOCKS), "max_age_duration": str(200 * 10**9), "max_bytes": "100000"}
    made["consensus"]["params"] = {**made["consensus"]["params"], "evidence": evidence}
    operations.prepare(made["app_state"], choose)
    made = document.normalise(made)
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    build.validate(made, app.modules)
    return made


def _gentx(number: int, choose: random.Random) -> bytes:
    one = account(number)
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": f"validator {number}"},
        validator_address=one.operator,
        pubkey=public_key_to_any(ValidatorKey.numbered(number).public_key),
        min_self_delegation="1",
        value=coin(choose.randint(10**21, 2 * 10**21)),
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    return build_tx([message], fee=(), gas_limit=10**6, signers=[Signer(one.key.public_key, 0)]).sign([one.key], CHAIN_ID)


class Generator:
    """Draws the next block of a running chain. The same seed and the same chain give the same blocks."""

    def __init__(self, world: World) -> None:
        self.world, self.choose = world, world.choose
        world.validator_keys = VALIDATORS
        modules = world.modules
        self._kinds = operations.kinds_of(modules)
        self._weights = [kind.weight for kind in self._kinds]
        self._only_gov = [
            name
            for module in world.app.modules
            for name in sorted(module.messages)
            if list(option_of(message_class(name).DESCRIPTOR, _SIGNER)) == ["authority"]
        ]
        self._punishes, self._allows = "evidence" in modules, "feegrant" in modules
        self._lazy: list[str] = []

    def block(self, count: int) -> Block:
        """A block of about ``count`` operations."""
        choose, world = self.choose, self.world
        world.next_block()
        absent, nil = self._absences()
        return Block(
            time_step_s=choose.choice((1, 1, 5, 5, 5, 5, 5, 5, 20, 120)),
            is_forced=choose.random() < 0.3,
            failed_rounds=choose.choice((0, 0, 0, 0, 1, 3)),
            absent=absent,
            nil=nil,
            evidence=self._evidence(),
            imports=choose.random() < 0.12 or world.driver.height == FIRST_IMPORT,
            operations=tuple(self.operation() for _ in range(choose.randint(count - count // 2, count + count // 2))),
        )

    # --- validators -----------------------------------------------------------------------------------------------------------

    def _absences(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Who did not vote for the last block and who voted nil: less than a third of the power, as a commit needs."""
        choose, driver = self.choose, self.world.driver
        last = driver.blocks.get(driver.height)
        if last is None:
            return (), ()
        members = {one.address.hex(): one.power for one in last.validators}
        if choose.random() < 0.25:
            self._lazy = choose.sample(sorted(members), min(choose.randint(0, 2), len(members)))
        left = (sum(members.values()) - 1) // 3
        chosen: list[str] = []
        for address in [*self._lazy, *(one for one in sorted(members) if choose.random() < 0.05)]:
            power = members.get(address, left + 1)
            if address not in chosen and power <= left:
                chosen.append(address)
                left -= power
        return tuple(one for one in chosen if one in self._lazy), tuple(one for one in chosen if one not in self._lazy)

    def _evidence(self) -> tuple[tuple[str, int], ...]:
        """Now and then a validator that signed twice, as long as enough others stay."""
        choose, members = self.choose, list(self.world.driver.next_validators)
        total = sum(one.power for one in members)
        weak = sorted(one.address.hex() for one in members if one.power * 3 < total)
        if not self._punishes or len(members) < 4 or not weak or choose.random() > 0.04:
            return ()
        return ((choose.choice(weak), choose.randrange(EVIDENCE_AGE_BLOCKS + 3)),)

    # --- operations -----------------------------------------------------------------------------------------------------------

    def operation(self) -> Operation:
        """One operation, of any kind, with or without a fault."""
        roll = self.choose.random()
        if roll < 0.01:
            return Operation("garbage", raw=self.choose.randbytes(self.choose.randrange(1, 200)))
        if roll < 0.03:
            return self._made("usurper", [self._usurped()])
        if roll < 0.08:
            name, messages = self._drawn()
            return self._made(f"mangled {name}", [mangle(self.choose, one) for one in messages])
        if roll < 0.13:
            return self._made("batch", [one for _ in range(self.choose.randint(2, 4)) for one in self._drawn()[1]])
        name, messages = self._drawn()
        if roll < 0.18:
            return self._made(name, messages, fault=self.choose.choice(FAULTS))
        if roll < 0.22:
            return self._made(name, messages, gas=self.choose.randint(20_000, 200_000))
        return self._made(name, messages)

    def _drawn(self) -> tuple[str, list[Any]]:
        while True:
            kind: Kind = self.choose.choices(self._kinds, self._weights)[0]
            built = kind.build(self.choose, self.world)
            if built is not None:
                return kind.name, list(built) if isinstance(built, Sequence) else [built]

    def _made(self, name: str, messages: Sequence[Any], **fields: Any) -> Operation:
        """Signed by whom the messages name, as far as their keys are known; by anybody where they name none."""
        signers: dict[int, None] = {}
        for message in messages:
            try:
                addresses = message_signers_of(message)
            except AppError:
                continue
            for address in addresses:
                found = self.world.by_text(bech32.encode(address))
                if found is not None:
                    signers[found.number] = None
        numbers = tuple(signers) or (self.world.someone().number,)
        parts = tuple((one.DESCRIPTOR.full_name, one.SerializeToString(deterministic=True)) for one in messages)
        gas = fields.pop("gas", 1_000_000 * len(parts))
        amino = self.choose.random() < 0.2
        return Operation(name, parts, numbers, gas=gas, amino=amino, granter=self._granter(numbers[0]), **fields)

    def _granter(self, payer: int) -> int:
        """Somebody who allowed the payer to spend fees, or whom nobody asked; mostly -1."""
        roll = self.choose.random()
        if not self._allows or roll > 0.3:
            return -1
        found = [self.world.by_text(one.granter) for one in feegrant.allowances(self.world, account(payer))]
        known = [one.number for one in found if one is not None]
        if known:
            return self.choose.choice(known)
        return self.world.someone().number if roll < 0.01 else -1

    def _usurped(self) -> Any:
        """A message of governance from somebody else, or in governance's name."""
        message = message_class(self.choose.choice(self._only_gov))()
        message.authority = GOV if self.choose.random() < 0.3 else self.world.someone().text
        return message


TEXTS = ("", "x", "0", "-1", "1.5", "1" * 100, str(2**256), str(2**255), "0.000000000000000001", "wei", "stake", GOV, "st1qqqq", "ä", "\x00")


def mangle(choose: random.Random, message: Any) -> Any:
    """A copy with one field, anywhere inside, changed to something odd, emptied or repeated."""
    copy = type(message).FromString(message.SerializeToString())
    target = copy
    while True:
        field = choose.choice(list(target.DESCRIPTOR.fields))
        value = getattr(target, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return copy
        if field.is_repeated:
            if value and choose.random() < 0.3:
                value.extend(list(value))
                return copy
            if not value or choose.random() < 0.3:
                target.ClearField(field.name)
                return copy
            if field.message_type is None:
                at = choose.randrange(len(value))
                value[at] = _odd(choose, field)
                return copy
            target = choose.choice(list(value))
        elif field.message_type is None:
            try:
                setattr(target, field.name, _odd(choose, field))
            except (ValueError, DecodeError):
                target.ClearField(field.name)
            return copy
        elif choose.random() < 0.2 or not target.HasField(field.name) or not field.message_type.fields:
            target.ClearField(field.name)
            return copy
        else:
            target = value


def _odd(choose: random.Random, field: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return choose.choice((*TEXTS, account(choose.randrange(FOUNDERS)).text, account(choose.randrange(FOUNDERS)).operator))
    if field.type == field.TYPE_BYTES:
        return choose.choice((b"", b"0", b"-1", b"\xff" * 40, choose.randbytes(choose.randrange(40))))
    if field.type == field.TYPE_BOOL:
        return choose.random() < 0.5
    if field.type == field.TYPE_ENUM:
        return choose.choice((0, 1, 2, 3, 4, 99, -1))
    if field.type in (field.TYPE_UINT32, field.TYPE_UINT64):
        return choose.choice((0, 1, 2**31, 2**32 - 1))
    return choose.choice((0, 1, -1, 2**31 - 1, -(2**31)))
