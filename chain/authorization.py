"""Authorizations: what somebody may let another do in his name. A module that has messages with limits of their own (bank, staking) brings a kind;
``chain/app.py`` hands the kinds to authz.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from chain.context import Context
from chain.errors import AppError


class Accepted(NamedTuple):
    """What becomes of an authorization that allowed a message: it is used up, it changes, or it stays as it is."""

    used_up: bool = False
    updated: Any | None = None


@dataclass(frozen=True, slots=True)
class AuthorizationKind:
    """How authorizations of one protobuf type work.

    ``type_url(authorization)``  type URL of the messages that it is for
    ``check(authorization)``  raises AppError unless it makes sense by itself
    ``accept(ctx, authorization, message)``  what becomes of it by allowing ``message``, which is of that type; raises AppError to refuse it
    """

    type_url: Callable[[Any], str]
    check: Callable[[Any], None]
    accept: Callable[[Context, Any, Any], Accepted]


class UnknownAuthorizationType(AppError):
    """authz/4: the authorization says of no kind of message that it is for it."""

    codespace = "authz"
    code = 4
    description = "unknown authorization type"


class NegativeMaxTokens(AppError):
    """authz/12: an authorization for less than nothing."""

    codespace = "authz"
    code = 12
    description = "max tokens should be positive"
