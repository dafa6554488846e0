"""What must hold of authz's state after every block."""

from __future__ import annotations

from chain.module import Invariant
from chain.store.api import StateReader, prefix_end
from modules.authz import keys
from modules.authz.keeper import AuthzKeeper, GrantQueueItem, sortable_of


def queue_holds_what_ends(keeper: AuthzKeeper) -> Invariant:
    """Every grant with an expiration is queued under it, once, and nothing else is queued."""

    def check(state: StateReader) -> str | None:
        ends = []
        for granter, grantee, grant in keeper.iterate(state):
            type_url = keeper.type_url_of(grant)
            if keeper.grant(state, granter, grantee, type_url) != grant:
                return f"a grant for {type_url} lies under another key"
            if grant.HasField("expiration"):
                ends.append((keys.queue(sortable_of(grant.expiration), granter, grantee), type_url))
        queued = [
            (key, type_url)
            for key, raw in state.store(keys.STORE).iterate(keys.QUEUE, prefix_end(keys.QUEUE))
            for type_url in GrantQueueItem.FromString(raw).msg_type_urls
        ]
        return None if sorted(ends) == sorted(queued) else f"{len(ends)} grants end some time, {len(queued)} are queued, and they are not the same"

    return check
