"""Messages of evidence: SubmitEvidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chain.codec.registry import message_class, unpack_any
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidAddress, TxDecodeError
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.evidence.errors import InvalidEvidence
from modules.evidence.keeper import PACKAGE, ROUTES, EvidenceKeeper, problem_of


def handlers(keeper: EvidenceKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""
    response = message_class(f"{PACKAGE}.MsgSubmitEvidenceResponse")

    def submit_evidence(ctx: Context, state: StateWriter, message: Any) -> Any:
        try:
            bech32.decode(message.submitter)
        except AppError as error:
            raise InvalidAddress(f"invalid submitter address: {error.detail}") from None
        if not message.HasField("evidence"):
            raise InvalidEvidence("missing evidence")
        problem = problem_of(unpack_any(message.evidence))
        if problem is not None:
            raise InvalidEvidence(f"failed basic validation: {problem}")
        return response(hash=keeper.submit(ctx, state, message.evidence))

    return {f"{PACKAGE}.MsgSubmitEvidence": MessageHandler(submit_evidence, _check_kind)}


def _check_kind(message: Any) -> None:
    """Raise TxDecodeError (sdk/2), as decoding does in the SDK, for what is no evidence."""
    url = message.evidence.type_url
    if message.HasField("evidence") and url not in ROUTES:
        raise TxDecodeError(f"expected evidence, one of {', '.join(ROUTES)}, got {url[:200]!r}")
