"""Evidence in a message, which no handler takes; double votes come with blocks (``generate.py``)."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class, pack_any
from chain.crypto import address as bech32
from tests.simulation.world import Kind, World


def submit(choose: random.Random, world: World) -> Any:
    validator = choose.choice(list(world.driver.validators))
    equivocation = message_class("cosmos.evidence.v1beta1.Equivocation")(
        height=max(world.driver.height - 1, 1), power=1, consensus_address=bech32.encode(validator.address, bech32.CONSENSUS)
    )
    equivocation.time.seconds = world.now_s
    return message_class("cosmos.evidence.v1beta1.MsgSubmitEvidence")(submitter=world.someone().text, evidence=pack_any(equivocation))


OPERATIONS = (Kind("submit evidence", 1, submit),)
