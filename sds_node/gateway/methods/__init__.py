"""What each ``user_*`` method does, a file for each theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sds_node.gateway.methods import downloads, files, shares, uploads

if TYPE_CHECKING:
    from sds_node.gateway.gateway import Work

WORK: Final[dict[str, Work]] = uploads.WORK | downloads.WORK | files.WORK | shares.WORK
