"""Ozone bought in wei, gwei and stos, now and then for nothing or for too much; files that owners of meta nodes report, and others try to."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from tests.simulation.world import Kind, World, coin

PACKAGE = "stratos.sds.v1"
FILES = 20
_ALPHABET = "0123456789abcdefghijklmnopqrstuv"


def cid(number: int) -> str:
    """A CID as Stratos makes them: version 1, codec 0x66, 20 bytes of keccak-256, in base32hex."""
    raw = b"\x01\x66\x1b\x14" + hashlib.sha256(b"file %d" % number).digest()[:20]
    bits = "".join(f"{byte:08b}" for byte in raw)
    bits += "0" * (-len(bits) % 5)
    return "v" + "".join(_ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def prepay(choose: random.Random, world: World) -> Any:
    sender = world.someone()
    amounts = [[coin(choose.randint(10**6, 10**19))], [coin(choose.randint(1, 10**9), "gwei"), coin(choose.randint(1, 5), "stos"), coin(1)]]
    if choose.random() < 0.1:
        amounts = [[], [coin(5, "stake")], [coin(10**30)], [coin(1)]]
    return message_class(f"{PACKAGE}.MsgPrepay")(sender=sender.text, beneficiary=world.someone().text, amount=choose.choice(amounts))


def file_upload(choose: random.Random, world: World) -> Any:
    nodes = list(world.ask("stratos.register.v1.Query/MetaNodes", pagination={"limit": 100}).nodes)
    owned = [node for node in nodes if world.by_text(node.owner_address) is not None]
    reporter, owner = bech32.encode(bytes(20), bech32.NODE), world.someone().text
    if owned:
        node = choose.choice(owned)
        reporter, owner = node.network_address, node.owner_address if choose.random() < 0.9 else owner
    made = message_class(f"{PACKAGE}.MsgFileUpload")(file_hash=cid(choose.randrange(FILES)), reporter=reporter, uploader=world.someone().text)
    setattr(made, "from", owner)
    return made


OPERATIONS = (Kind("prepay", 20, prepay), Kind("file upload", 6, file_upload))
