"""What signers sign, in every mode, against the SDK's own x/tx code (tests/codec/make_sign_bytes.py; Go program beside it)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.codec.registry import Any_
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any
from chain.errors import Unauthorized
from chain.store.kv import MemoryBackend
from chain.tx.decode import TxRaw, decode_tx
from chain.tx.signing import DIRECT, DIRECT_AUX, LEGACY_AMINO_JSON, sign_bytes
from tests.codec.make_sign_bytes import messages, questions

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "vectors" / "sign_bytes.json").read_text())


def signed(vector: dict[str, Any], mode: int) -> bytes:
    body, auth_info, key = (base64.b64decode(vector[name]) for name in ("body", "auth_info", "key"))
    tx = decode_tx(TxRaw(body_bytes=body, auth_info_bytes=auth_info, signatures=[b""]).SerializeToString())
    return sign_bytes(
        tx,
        mode,
        chain_id=vector["chain_id"],
        account_number=vector["account_number"],
        sequence=vector["sequence"],
        key=public_key_from_any(Any_(type_url=vector["key_url"], value=key)),
        signer=bech32.decode(vector["signer"]),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_every_mode_signs_what_the_sdk_signs(vector: dict[str, Any]) -> None:
    assert signed(vector, LEGACY_AMINO_JSON).decode() == vector["amino"]
    assert signed(vector, DIRECT) == base64.b64decode(vector["direct"])
    if vector["direct_aux"] is None:
        with pytest.raises(Unauthorized, match="fee payer"):
            signed(vector, DIRECT_AUX)
    else:
        assert signed(vector, DIRECT_AUX) == base64.b64decode(vector["direct_aux"])


def test_the_vectors_are_of_the_transactions_that_this_code_makes_now() -> None:
    asked = [{name: vector[name] for name in vector if name not in ("direct", "direct_aux", "amino")} for vector in VECTORS]
    assert asked == questions()


def test_there_is_a_vector_for_every_message_that_the_sdk_has() -> None:
    handled = {name for module in build_application(MemoryBackend()).modules for name in module.messages if name.startswith("cosmos.")}
    assert handled - {one.DESCRIPTOR.full_name for one in messages().values()} == {"cosmos.bank.v1beta1.MsgBurn"}, "it came after SDK 0.50"
