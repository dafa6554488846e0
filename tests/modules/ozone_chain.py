"""What every chain of the ozone economy's tests does: transactions that must succeed, and some that must change nothing."""

from __future__ import annotations

from typing import Any, ClassVar

from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.testing.driver import TxResult
from tests.grants import Chain, code


class OzoneChain(Chain):
    """``gas``: the limit of a transaction that names none."""

    gas: ClassVar[int]

    def economy(self) -> dict[str, Any]:
        """What no refused message may change."""
        raise NotImplementedError

    def ok(self, private: PrivateKey, *messages: Any, **options: Any) -> TxResult:
        """The result of a transaction that must succeed."""
        result = self.run(private, *messages, **{"gas": self.gas, **options})
        assert result.code == 0, result.log
        return result

    def refusal(self, private: PrivateKey, *messages: Any, **options: Any) -> tuple[tuple[str, int], str]:
        """((codespace, code), log) of a transaction that must fail and must leave everything but its fee and sequence as it was."""
        before = self.economy()
        result = self.run(private, *messages, **{"gas": self.gas, **options})
        assert result.code, "the transaction was accepted"
        assert self.economy() == before
        return code(result), result.log

    def wei(self, address: str) -> int:
        """wei of an account."""
        return int(self.query("cosmos.bank.v1beta1", "Balance", address=address, denom="wei").balance.amount)

    def module_wei(self, name: str) -> int:
        """wei of a module account."""
        return self.wei(bech32.encode(bech32.module_address(name)))
