"""Messages of settlement: RegisterMetaKeys, CommitEpoch, FraudProof, AnswerChallenge, UpdateParams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.authority import require_gov
from chain.codec.registry import message_class
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import Unauthorized
from chain.module import MessageHandler
from chain.store.api import StateWriter
from modules.settlement import challenges, commitment, consequences, fraud
from modules.settlement.errors import CommitmentAlone, InvalidProof
from modules.settlement.keeper import SettlementKeeper
from modules.settlement.params import PACKAGE, check_params

REPORT: Final = "stratos.pot.v1.MsgVolumeReport"


def handlers(keeper: SettlementKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""

    def register_keys(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.register_keys(ctx, state, message)
        return _response("RegisterMetaKeys")()

    def check_commitment(message: Any) -> None:
        bech32.decode(message.reporter_owner)
        commitment.check(message.commitment)

    def commit_epoch(ctx: Context, state: StateWriter, message: Any) -> Any:
        report = ctx.next_message
        if report is None or report.DESCRIPTOR.full_name != REPORT:
            raise CommitmentAlone(f"expected /{REPORT} as the next message of the same transaction, got {_named(report)}")
        reference = commitment.reference(message.commitment)
        found = report.epoch, report.reporter_owner, report.report_reference
        if found != (str(message.commitment.epoch), message.reporter_owner, reference):
            raise CommitmentAlone(
                f"expected the report of epoch {message.commitment.epoch}, owner {message.reporter_owner} and reference {reference} as the next message, "
                f"got that of epoch {found[0][:40]}, owner {found[1][:100]} and reference {found[2][:100]}"
            )
        keeper.open(state, message)
        return _response("CommitEpoch")(report_reference=reference)

    def fraud_proof(ctx: Context, state: StateWriter, message: Any) -> Any:
        finder, kind = bech32.decode(message.finder), message.WhichOneof("proof")
        if kind is None:
            raise InvalidProof(f"expected one of {', '.join(fraud.KINDS)}, got no proof")
        proof = getattr(message, kind)
        if kind == challenges.KIND:
            challenge_id = challenges.challenge(keeper, ctx, state, finder, proof.epoch, proof.leaf_index)
            return _response("FraudProof")(finder_reward_wei="0", challenge_id=challenge_id)
        if keeper.bank.is_blocked(finder):
            raise Unauthorized(f"{message.finder} is not allowed to receive funds")
        verdict = fraud.judge(keeper, ctx, state, proof, kind)
        if isinstance(verdict, fraud.UsedTwice):
            keeper.punish(state, verdict.meta_node, verdict.lease_id)
            reward = consequences.punish(keeper, ctx, state, [bech32.encode(verdict.meta_node, bech32.NODE)], finder, kind)
        else:
            reward = consequences.void(keeper, ctx, state, keeper.contestable(state, verdict.epoch), finder, kind)
        return _response("FraudProof")(finder_reward_wei=str(reward))

    def answer(ctx: Context, state: StateWriter, message: Any) -> Any:
        bond = challenges.answer(keeper, ctx, state, bech32.decode(message.responder), message.challenge_id, message.leaf)
        return _response("AnswerChallenge")(bond_wei=str(bond))

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        keeper.set_params(state, message.params)
        return _response("UpdateParams")()

    return {
        f"{PACKAGE}.MsgRegisterMetaKeys": MessageHandler(register_keys),
        f"{PACKAGE}.MsgCommitEpoch": MessageHandler(commit_epoch, check_commitment),
        f"{PACKAGE}.MsgFraudProof": MessageHandler(fraud_proof),
        f"{PACKAGE}.MsgAnswerChallenge": MessageHandler(answer),
        f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params),
    }


def _response(name: str) -> Any:
    return message_class(f"{PACKAGE}.Msg{name}Response")


def _named(message: Any) -> str:
    return "none" if message is None else f"/{message.DESCRIPTOR.full_name}"
