"""authz's section of app_state: ``cosmos.authz.v1beta1.GenesisState`` as proto JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from chain.codec.json import from_json, to_json
from chain.codec.registry import message_class, unpack_any
from chain.codec.times import NANOS
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidType
from chain.module import GenesisError, Json, ValidatorUpdate
from chain.store.api import StateReader, StateWriter
from modules.authz.keeper import PACKAGE, AuthzKeeper
from modules.authz.queries import entry_of

GenesisState: Final = message_class(f"{PACKAGE}.GenesisState")
PATH: Final = "app_state.authz"


class AuthzGenesis:
    """Default, check, load and export."""

    def __init__(self, keeper: AuthzKeeper) -> None:
        self._keeper = keeper

    def default(self) -> Json:
        return to_json(GenesisState())

    def validate(self, section: Json) -> None:
        for _ in self._read(section):
            """Reading checks."""

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        for granter, grantee, authorization, expiration in self._read(section):
            if expiration is None or expiration.seconds * NANOS + expiration.nanos > ctx.time_ns:
                self._keeper.save(ctx, state, granter, grantee, authorization, expiration)
        return ()

    def export(self, ctx: Context, state: StateReader) -> Json:
        return to_json(GenesisState(authorization=[entry_of(*found) for found in self._keeper.iterate(state)]))

    def _read(self, section: Json) -> Iterator[tuple[bytes, bytes, Any, Any | None]]:
        """(granter, grantee, authorization, expiration or None) of each entry. Raises GenesisError."""
        try:
            genesis = from_json(GenesisState, section, PATH)
        except AppError as error:
            raise GenesisError(PATH, error.detail) from None
        for at, entry in enumerate(genesis.authorization):
            try:
                granter, grantee = bech32.decode(entry.granter), bech32.decode(entry.grantee)
                if not entry.HasField("authorization"):
                    raise InvalidType("authorization is nil")
                authorization = unpack_any(entry.authorization)
                kind = self._keeper.kind_of(authorization)
                kind.check(authorization)
                kind.type_url(authorization)
            except AppError as error:
                raise GenesisError(f"{PATH}.authorization[{at}]", str(error)) from None
            yield granter, grantee, authorization, entry.expiration if entry.HasField("expiration") else None
