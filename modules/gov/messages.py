"""Messages of governance, v1 and v1beta1. The old ones are turned into the new ones, as SDK 0.50 does it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chain.authority import GOV_ADDRESS, require_gov
from chain.codec.canonical import known
from chain.codec.registry import message_class, pack_any, unpack_any
from chain.codec.times import NANOS
from chain.codec.unknown_fields import implements
from chain.context import Context
from chain.crypto import address as bech32
from chain.dec import ONE, DecError, dec_text, parse_dec
from chain.errors import AppError, InvalidAddress, InvalidRequest, TxDecodeError
from chain.module import MessageHandler
from chain.store.api import StateWriter
from chain.tx.limits import MAX_MESSAGES
from modules.gov import content, events
from modules.gov.errors import InvalidProposalContent, InvalidVote, NoProposalHandler, NoProposalMessages
from modules.gov.keeper import (
    EXEC_LEGACY_CONTENT,
    MAX_METADATA_BYTES,
    PACKAGE,
    GovKeeper,
    check_denoms,
    check_initial_deposit,
    deposit_coins,
)
from modules.gov.params import check_params

LEGACY: Final = "cosmos.gov.v1beta1"
WHOLE: Final = str(parse_dec("1"))
_ExecLegacyContent: Final = message_class(EXEC_LEGACY_CONTENT)
_Option: Final = message_class(f"{PACKAGE}.WeightedVoteOption")
_MAX_SHOWN: Final = 200
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def handlers(keeper: GovKeeper) -> Mapping[str, MessageHandler]:
    """The module's message handlers over ``keeper``."""

    def submit_proposal(ctx: Context, state: StateWriter, message: Any) -> Any:
        if not message.title:
            raise InvalidRequest("proposal title cannot be empty")
        if not message.summary:
            raise InvalidRequest("proposal summary cannot be empty")
        proposer = _address(message.proposer, "proposer")
        if not message.messages and not message.metadata:
            raise NoProposalMessages("either metadata or Msgs length must be non-nil")
        _check_metadata(message)
        messages = [unpack_any(wrapped) for wrapped in message.messages]
        params = keeper.params(state)
        deposit = deposit_coins(message.initial_deposit, positive=False)
        check_initial_deposit(params, deposit, message.expedited)
        check_denoms(params, deposit)
        proposal = keeper.submit(
            ctx,
            state,
            messages,
            metadata=message.metadata,
            title=message.title,
            summary=message.summary,
            proposer=proposer,
            expedited=message.expedited,
        )
        if keeper.add_deposit(ctx, state, proposal.id, proposer, deposit):
            events.voting_started(ctx, "submit_proposal", proposal.id)
        return _response("SubmitProposal")(proposal_id=proposal.id)

    def submit_legacy_proposal(ctx: Context, state: StateWriter, message: Any) -> Any:
        if not message.HasField("content"):
            raise InvalidProposalContent("missing content")
        legacy = content.read(message.content)
        legacy.check()
        wrapped = _ExecLegacyContent(content=pack_any(legacy.message), authority=bech32.encode(GOV_ADDRESS))
        submitted = submit_proposal(
            ctx,
            state,
            message_class(f"{PACKAGE}.MsgSubmitProposal")(
                messages=[pack_any(wrapped)],
                initial_deposit=message.initial_deposit,
                proposer=message.proposer,
                title=legacy.message.title,
                summary=legacy.message.description,
            ),
        )
        return _response("SubmitProposal", LEGACY)(proposal_id=submitted.proposal_id)

    def exec_legacy_content(ctx: Context, state: StateWriter, message: Any) -> Any:
        keeper.module_account(ctx, state)  # read for its gas, as the SDK reads it
        require_gov(message.authority)
        legacy = content.read(message.content)
        if legacy.route not in content.ROUTES:
            raise NoProposalHandler(legacy.route)
        return _response("ExecLegacyContent")()

    def deposit(ctx: Context, state: StateWriter, message: Any) -> Any:
        depositor = _address(message.depositor, "depositor")
        amount = deposit_coins(message.amount, positive=True)
        if keeper.add_deposit(ctx, state, message.proposal_id, depositor, amount):
            events.voting_started(ctx, "proposal_deposit", message.proposal_id)
        return _response_to(message)

    def vote(ctx: Context, state: StateWriter, message: Any) -> Any:
        voter = _address(message.voter, "voter")
        if not _is_option(message.option):
            raise InvalidVote(_option_name(message.option))
        # The old message has no metadata.
        metadata = getattr(message, "metadata", "")
        keeper.add_vote(ctx, state, message.proposal_id, voter, [_Option(option=message.option, weight=WHOLE)], metadata)
        return _response_to(message)

    def vote_weighted(ctx: Context, state: StateWriter, message: Any) -> Any:
        voter = _address(message.voter, "voter")
        options = [_Option(option=one.option, weight=one.weight) for one in message.options]
        check_options(options)
        keeper.add_vote(ctx, state, message.proposal_id, voter, options, message.metadata)
        return _response_to(message)

    def vote_weighted_legacy(ctx: Context, state: StateWriter, message: Any) -> Any:
        voter = _address(message.voter, "voter")
        options = [_Option(option=one.option, weight=_legacy_weight(one.weight)) for one in message.options]
        check_options(options)
        keeper.add_vote(ctx, state, message.proposal_id, voter, options, "")
        return _response_to(message)

    def cancel_proposal(ctx: Context, state: StateWriter, message: Any) -> Any:
        _address(message.proposer, "proposer")
        keeper.cancel(ctx, state, message.proposal_id, message.proposer)
        events.canceled(ctx, message.proposal_id, message.proposer)
        response = _response("CancelProposal")(proposal_id=message.proposal_id, canceled_height=ctx.height)
        response.canceled_time.seconds, response.canceled_time.nanos = divmod(ctx.time_ns, NANOS)
        return response

    def update_params(ctx: Context, state: StateWriter, message: Any) -> Any:
        require_gov(message.authority)
        check_params(message.params)
        keeper.set_params(state, known(message.params))
        return _response("UpdateParams")()

    return {
        f"{PACKAGE}.MsgSubmitProposal": MessageHandler(submit_proposal, _check_messages),
        EXEC_LEGACY_CONTENT: MessageHandler(exec_legacy_content, _check_exec_legacy_content),
        f"{PACKAGE}.MsgVote": MessageHandler(vote),
        f"{PACKAGE}.MsgVoteWeighted": MessageHandler(vote_weighted),
        f"{PACKAGE}.MsgDeposit": MessageHandler(deposit),
        f"{PACKAGE}.MsgUpdateParams": MessageHandler(update_params),
        f"{PACKAGE}.MsgCancelProposal": MessageHandler(cancel_proposal),
        f"{LEGACY}.MsgSubmitProposal": MessageHandler(submit_legacy_proposal),
        f"{LEGACY}.MsgVote": MessageHandler(vote),
        f"{LEGACY}.MsgVoteWeighted": MessageHandler(vote_weighted_legacy),
        f"{LEGACY}.MsgDeposit": MessageHandler(deposit),
    }


def check_options(options: Sequence[Any]) -> None:
    """Raise InvalidVote (gov/7) unless there are options, each known, once, and with a weight above 0, that add up to 1."""
    if not options:
        raise InvalidRequest("null")
    total = 0
    used = []
    for option in options:
        weight = _weight(option.weight)
        if weight is None or not 0 < weight <= ONE or not _is_option(option.option):
            raise InvalidVote(_option_text(option))
        total += weight
        if option.option in used:
            raise InvalidVote("duplicated vote option")
        used.append(option.option)
    if total != ONE:
        raise InvalidVote("total weight overflow 1.00" if total > ONE else "total weight lower than 1.00")


def _weight(text: str) -> int | None:
    try:
        return parse_dec(text).scaled
    except DecError:
        return None


def _legacy_weight(wire: str) -> str:
    try:
        return dec_text(wire)
    except DecError as error:
        raise TxDecodeError(str(error)) from None


def _is_option(number: int) -> bool:
    return 1 <= number <= 4


def _option_name(number: int) -> str:
    known = _Option.DESCRIPTOR.fields_by_name["option"].enum_type.values_by_number.get(number)
    return str(number) if known is None else known.name


def _option_text(option: Any) -> str:
    """As Go prints the message."""
    shown = f"option:{_option_name(option.option)} " if option.option else ""
    return shown + (f'weight:"{option.weight[:_MAX_SHOWN]}" ' if option.weight else "")


def _check_messages(message: Any) -> None:
    """What decoding refuses in the SDK: an Any in ``messages`` that holds no transaction message. And too many of them."""
    if len(message.messages) > MAX_MESSAGES:
        raise InvalidRequest(f"a proposal has at most {MAX_MESSAGES} messages, got {len(message.messages)}")
    for wrapped in message.messages:
        if not implements(unpack_any(wrapped).DESCRIPTOR, "sdk.Msg"):
            raise TxDecodeError(f"no concrete type registered for type URL {wrapped.type_url[:_MAX_SHOWN]} against interface *types.Msg")


def _check_exec_legacy_content(message: Any) -> None:
    bech32.decode(message.authority)


def _check_metadata(message: Any) -> None:
    """Title and summary in the metadata must be the proposal's, where it is JSON as the SDK recommends it.

    Go's reading: names in any case, other fields ignored, a value of another type makes it no JSON of that form, and half of an escaped
    surrogate pair is U+FFFD. Metadata that is too long is refused later, and not read here, so that its nesting stays bounded.
    """
    if not message.metadata or len(message.metadata.encode()) > MAX_METADATA_BYTES:
        return
    found = _read_metadata(message.metadata)
    if found is None:
        return
    for name in ("title", "summary"):
        if found[name] != getattr(message, name):
            raise InvalidProposalContent(f"metadata {name} '{found[name]}' must equal proposal {name} '{getattr(message, name)[:_MAX_SHOWN]}'")


def _read_metadata(text: str) -> dict[str, str] | None:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        # Objects become tuples of pairs, so that a name that comes twice is seen as often as Go sees it; numbers matter only as such.
        given = json.loads(text, object_pairs_hook=tuple, parse_constant=refuse, parse_float=len)
    except ValueError:
        return None
    found = {"title": "", "summary": "", "details": "", "proposal_forum_url": "", "vote_option_context": ""}
    if given is None:
        return found
    if not isinstance(given, tuple):
        return None
    for name, value in given:
        lowered = name.lower() if name.isascii() else name
        if value is None:
            continue
        if lowered in found:
            if not isinstance(value, str):
                return None
            found[lowered] = _LONE_SURROGATE.sub("\ufffd", value)
        elif lowered == "authors" and not (isinstance(value, list) and all(one is None or isinstance(one, str) for one in value)):
            return None
    return found


def _address(text: str, what: str) -> bytes:
    try:
        return bech32.decode(text)
    except AppError as error:
        raise InvalidAddress(f"invalid {what} address: {error.detail}") from None


def _response(name: str, package: str = PACKAGE) -> Any:
    return message_class(f"{package}.Msg{name}Response")


def _response_to(message: Any) -> Any:
    return message_class(f"{message.DESCRIPTOR.full_name}Response")()
