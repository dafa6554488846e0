"""What a wallet orders of the ledger, signed by the wallet itself, each with a nonce and an end.

    kind ─► WalletOrder {chain, wallet, nonce, end} ─ Keccak, wallet's key ─► file.order, again and again until it is told: it is done once

Source: rules README (`wallet_order`); ADR 8 ("who may do what").
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from chain.crypto.keys import PrivateKey
from modules.settlement.leaves import SERIAL_BYTES
from sds_node import asking
from sds_node.client.errors import USED_BEFORE, MetaRefused
from sds_node.client.meta import MetaClient
from sds_node.documents import PACKAGE

WalletOrder: Final = message_class(f"{PACKAGE}.WalletOrder")
WalletDocument: Final = message_class("stratos.settlement.v1.WalletDocument")
ORDER_DOMAIN: Final = b"stratos/wallet-order/v1"
LIFE_S: Final = 900
MAX_FILES: Final = 100
"""Files, objects or shares in one order."""


def signed_order(wallet: PrivateKey, chain_id: str, now_s: int, **kind: Any) -> Any:
    """A WalletDocument of a WalletOrder; ``kind`` is one of the message's kinds by name (``delete=…``)."""
    order = WalletOrder(
        chain_id=chain_id, wallet=wallet.public_key.address, nonce=secrets.token_bytes(SERIAL_BYTES), expires_s=now_s + LIFE_S, **kind
    )
    body = encode(known(order))
    # What wallets sign goes through Keccak for both kinds of key.
    signature = PrivateKey(wallet.raw, "eth_secp256k1").sign(ORDER_DOMAIN + b"\x00" + body)
    return WalletDocument(body=body, public_key=wallet.public_key.raw, signature=signature)


async def send_order(client: MetaClient, **kind: Any) -> None:
    """Have the ledger do what the wallet orders. Raises what ``MetaClient.ask`` raises."""
    document = signed_order(client.wallet, client.chain_id, int(client.clock()), **kind)
    try:
        await client.ask(asking.FILE_ORDER, asking.OrderHead(order=document), None)
    except MetaRefused as error:
        # The answer to an earlier sending was lost: it is done.
        if error.code != USED_BEFORE:
            raise
