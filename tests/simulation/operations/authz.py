"""Grants of every kind, used by whom they are for and by others, taken back, and left to end."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class, unpack_any
from tests.grants import execute, generic, grant, revoke, send_up_to
from tests.simulation import operations
from tests.simulation.operations.staking import validators
from tests.simulation.world import Account, Kind, World, coin

PACKAGE = "cosmos.authz.v1beta1"
STAKE = "cosmos.staking.v1beta1.StakeAuthorization"
STAKE_MESSAGES = {1: "MsgDelegate", 2: "MsgUndelegate", 3: "MsgBeginRedelegate", 4: "MsgCancelUnbondingDelegation"}


def _grants(world: World, one: Account) -> list[Any]:
    """What others granted to an account."""
    return list(world.ask(f"{PACKAGE}.Query/GranteeGrants", grantee=one.text, pagination={"limit": 100}).grants)


def _inner(choose: random.Random, world: World) -> list[Any]:
    """One message that others may be allowed to send, by any module's operation."""
    kinds = world.scratch.setdefault("kinds", [kind for kind in operations.kinds_of(world.modules) if kind.name not in _OWN])
    while True:
        built = choose.choices(kinds, [kind.weight for kind in kinds])[0].build(choose, world)
        if built is not None:
            return built if isinstance(built, list) else [built]


def _authorization(choose: random.Random, world: World) -> Any:
    kind = choose.randrange(4)
    if kind == 0:
        allowed = [world.someone().text for _ in range(choose.choice((0, 0, 3)))]
        return send_up_to(choose.randint(1, 10**20), *dict.fromkeys(allowed))
    if kind == 1:
        found = message_class(STAKE)(authorization_type=choose.randint(1, 4))
        operators = [one.operator_address for one in validators(world)]
        chosen = getattr(found, choose.choice(("allow_list", "deny_list")))
        chosen.address.extend(choose.sample(operators, choose.randint(1, len(operators))))
        if choose.random() < 0.6:
            found.max_tokens.CopyFrom(message_class("cosmos.base.v1beta1.Coin")(**coin(choose.randint(1, 10**20))))
        return found
    return generic("/" + _inner(choose, world)[0].DESCRIPTOR.full_name)


def make_grant(choose: random.Random, world: World) -> Any:
    grantee = world.stranger() if choose.random() < 0.02 else world.someone()
    end_s = world.now_s + choose.randint(-5, 200) if choose.random() < 0.7 else 0
    return grant(world.someone().text, grantee.text, _authorization(choose, world), end_s)


def use_grant(choose: random.Random, world: World) -> Any:
    """Messages of the granter where one of a fitting type comes up, else anything: the grantee's own, or nobody's business."""
    one = world.someone()
    found = _grants(world, one)
    if not found:
        return execute(one.text, *_inner(choose, world)) if choose.random() < 0.1 else None
    chosen = choose.choice(found)
    authorization = unpack_any(chosen.authorization)
    name = authorization.DESCRIPTOR.name
    wanted = {"SendAuthorization": "MsgSend", "StakeAuthorization": STAKE_MESSAGES.get(getattr(authorization, "authorization_type", 0))}.get(name)
    wanted = wanted or authorization.msg.rpartition(".")[2]
    granter = world.by_text(chosen.granter)
    for _ in range(30):
        inner = _inner(choose, world)
        if granter is not None and inner[0].DESCRIPTOR.name == wanted:
            for message in inner:
                _sign_as(message, granter)
            break
    return execute(one.text, *inner)


def _sign_as(message: Any, one: Account) -> None:
    for field in ("from_address", "delegator_address", "sender", "depositor"):
        if field in message.DESCRIPTOR.fields_by_name:
            setattr(message, field, one.text)


def take_back(choose: random.Random, world: World) -> Any:
    one = world.someone()
    asked = world.ask(f"{PACKAGE}.Query/GranterGrants", granter=one.text, pagination={"limit": 100}).grants
    if not asked:
        return None
    chosen = choose.choice(list(asked))
    authorization = unpack_any(chosen.authorization)
    url = getattr(authorization, "msg", "") or "/cosmos.bank.v1beta1.MsgSend"
    if authorization.DESCRIPTOR.name == "StakeAuthorization":
        url = f"/cosmos.staking.v1beta1.{STAKE_MESSAGES[authorization.authorization_type]}"
    return revoke(one.text, chosen.grantee, url)


def exec_in_exec(choose: random.Random, world: World) -> Any:
    one = world.someone()
    return execute(one.text, execute(one.text, *_inner(choose, world)))


OPERATIONS = (Kind("grant", 20, make_grant), Kind("exec", 20, use_grant), Kind("revoke", 5, take_back), Kind("exec in exec", 2, exec_in_exec))
_OWN = frozenset(kind.name for kind in OPERATIONS)
