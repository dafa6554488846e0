"""What always holds of sds's state."""

from __future__ import annotations

from collections.abc import Mapping

from chain.errors import AppError
from chain.module import Invariant
from chain.store.api import StateReader
from modules.sds.cid import check_cid
from modules.sds.genesis import check_file
from modules.sds.keeper import SdsKeeper


def checks(keeper: SdsKeeper) -> Mapping[str, Invariant]:
    """The module's invariants."""

    def files_make_sense(state: StateReader) -> str | None:
        for file_hash, info in keeper.files(state):
            try:
                check_cid(file_hash)
                check_file(info)
            except AppError as error:
                return f"the record of {file_hash}: {error}"
        return None

    return {"file records make sense": files_make_sense}
