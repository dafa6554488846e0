"""Jailed validators come back. Who is jailed is decided by the votes and the evidence of the blocks."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class
from tests.simulation.operations.staking import validators
from tests.simulation.world import Kind, World


def prepare(section: Any, choose: random.Random) -> None:
    section["params"] |= {
        "signed_blocks_window": str(choose.choice((10, 10, 16))),
        "min_signed_per_window": "0.500000000000000000",
        "downtime_jail_duration": f"{choose.choice((60, 90))}s",
        "slash_fraction_downtime": choose.choice(("0.000200000000000000", "0.010000000000000000", "0.333333333333333333")),
    }


def unjail(choose: random.Random, world: World) -> Any:
    jailed = [one for one in validators(world) if one.jailed]
    if not jailed and choose.random() < 0.9:
        return None
    return message_class("cosmos.slashing.v1beta1.MsgUnjail")(validator_addr=choose.choice(jailed or validators(world)).operator_address)


OPERATIONS = (Kind("unjail", 20, unjail),)
