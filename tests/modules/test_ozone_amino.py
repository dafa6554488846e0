"""Every message of register, sds and grant that an account signs, signed as amino JSON, executes: what a Ledger and older wallets send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chain.coins import Coin
from chain.crypto.keys import public_key_to_any
from chain.tx.build import Signer, build_tx
from chain.tx.signing import LEGACY_AMINO_JSON
from tests.modules import granting
from tests.modules.governing import GAS, STOS
from tests.modules.registering import RegisterNet, add, create, effective, kick, make, node_key, node_text, remove, vote
from tests.support import CHAIN_ID, KEYS, text

FILE = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
BY_GOVERNANCE = ("MsgUpdateParams",)


class AminoNet(RegisterNet):
    """Signs as amino JSON; ``ran`` has the names of the messages that executed."""

    def __init__(self) -> None:
        super().__init__(4)
        self.ran: list[str] = []

    @property
    def now_s(self) -> int:
        return self.driver.time_ns // 10**9

    def amino(self, numbers: Sequence[int], message: Any) -> None:
        signers = [Signer(KEYS[number].public_key, self.sequences[number], number, LEGACY_AMINO_JSON) for number in numbers]
        unsigned = build_tx([message], fee=(Coin("wei", GAS * 10**9),), gas_limit=GAS, signers=signers)
        result = self.driver.next_block([unsigned.sign([KEYS[number] for number in numbers], CHAIN_ID)]).results[0]
        assert result.code == 0, (message, result.log)
        self._refresh(*numbers)
        self.ran.append(message.DESCRIPTOR.full_name)


def test_every_message_that_an_account_signs_executes_when_it_is_signed_as_amino_json() -> None:
    net = AminoNet()
    owner, sponsor, operator = (text(KEYS[number]) for number in (1, 2, 3))
    described = {"moniker": "<é> & \u2028", "website": ""}
    net.amino([1], create("Resource", 11, 1, description=described))
    net.amino([1], create("Meta", 12, 1, pubkey=public_key_to_any(node_key(12))))
    net.amino([1], make("MsgUpdateResourceNode", network_address=node_text(11), owner_address=owner, description=described, node_type=7))
    net.amino([1], make("MsgUpdateMetaNode", network_address=node_text(12), owner_address=owner, description=described))
    net.amino([1], add("Resource", 11, 1, STOS))
    net.amino([1], add("Meta", 12, 1, STOS))
    net.amino([1, 2, 3], effective(11, STOS, (1, 1), (2, 2), (3, 3)))
    net.amino([2], vote(12, 1, 2, 2, False))
    net.amino([2], kick(4, 2, 2))
    net.amino([1], remove("Resource", 11, 1))
    net.amino([1], remove("Meta", 12, 1))
    net.amino([5], granting.prepay(text(KEYS[5]), Coin("gwei", 10**9), Coin("wei", 5)))
    net.amino([4], granting.upload(FILE, text(KEYS[4]), node_text(4), owner))
    net.amino([2], granting.create_pool(sponsor, 5, name="<sponsor> é", denom="stos"))
    net.amino([1], granting.fund(owner, 1, 7))
    net.amino([2], granting.create_campaign(net, sponsor, [], granting.promotion(net)))  # type: ignore[arg-type]
    net.amino([2], granting.add_promotion(sponsor, granting.promotion(net, 2, end_s=1000)))  # type: ignore[arg-type]
    net.amino([2], granting.set_operators(sponsor, operator))
    net.amino([3], granting.claim(operator, granting.wallets(2)))
    net.amino([2], granting.end_campaign(sponsor))
    handled = [name for name in net.app.executor._handlers if name.startswith(("stratos.register.", "stratos.sds.", "stratos.grant."))]
    assert sorted(net.ran) == sorted(name for name in handled if name.split(".")[-1] not in BY_GOVERNANCE)
