"""Contents of old proposals (v1beta1). Only a text can be executed: what others once did, messages do."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from chain.codec.registry import unpack_any
from chain.errors import TxDecodeError
from modules.gov.errors import InvalidProposalContent, InvalidProposalType

MAX_TITLE_BYTES: Final = 140
MAX_DESCRIPTION_BYTES: Final = 10_000
ROUTES: Final = ("gov",)
"""Who executes contents; a text does nothing."""


class Content(NamedTuple):
    """A content that was read. ``route`` names who would execute it."""

    message: Any
    route: str

    def check(self) -> None:
        """Raise InvalidProposalType (gov/6), InvalidProposalContent (gov/5) for a title or a description that is missing or too long."""
        gone = _TYPES_GONE.get(self.message.DESCRIPTOR.full_name)
        if gone is not None:
            raise InvalidProposalType(gone)
        title, description = self.message.title, self.message.description
        if not title.strip():
            raise InvalidProposalContent("proposal title cannot be blank")
        if len(title.encode()) > MAX_TITLE_BYTES:
            raise InvalidProposalContent(f"proposal title is longer than max length of {MAX_TITLE_BYTES}")
        if not description:
            raise InvalidProposalContent("proposal description cannot be blank")
        if len(description.encode()) > MAX_DESCRIPTION_BYTES:
            raise InvalidProposalContent(f"proposal description is longer than max length of {MAX_DESCRIPTION_BYTES}")


_ROUTES_OF: Final = {
    "cosmos.gov.v1beta1.TextProposal": "gov",
    "cosmos.params.v1beta1.ParameterChangeProposal": "params",
    "cosmos.upgrade.v1beta1.SoftwareUpgradeProposal": "upgrade",
    "cosmos.upgrade.v1beta1.CancelSoftwareUpgradeProposal": "upgrade",
    "cosmos.distribution.v1beta1.CommunityPoolSpendProposal": "distribution",
}
_TYPES_GONE: Final = {"cosmos.distribution.v1beta1.CommunityPoolSpendProposal": "CommunityPoolSpend"}
"""Contents that can still be read, and not be proposed."""


def read(wrapped: Any) -> Content:
    """The content in an Any. Raises TxDecodeError (sdk/2) for another type."""
    message = unpack_any(wrapped)
    name = message.DESCRIPTOR.full_name
    route = _ROUTES_OF.get(name)
    if route is None:
        raise TxDecodeError(f"no concrete type registered for type URL /{name} against interface *v1beta1.Content")
    return Content(message, route)
