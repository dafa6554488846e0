"""Invariants checked for a fee."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class
from tests.simulation.world import Kind, World, coin


def prepare(section: Any, choose: random.Random) -> None:
    section["constant_fee"] = coin(10**18)


def verify_invariant(choose: random.Random, world: World) -> Any:
    known = [(module.name, name) for module in world.app.modules for name in sorted(module.invariants)]
    module, route = choose.choice([*known, ("bank", "nothing")])
    return message_class("cosmos.crisis.v1beta1.MsgVerifyInvariant")(sender=world.someone().text, invariant_module_name=module, invariant_route=route)


OPERATIONS = (Kind("verify invariant", 2, verify_invariant),)
