"""The store's records as Python values. Every amount is in wei."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.times import ns_of, set_ns
from chain.codec.varint import delimited, undelimited, uvarint
from chain.coins import CoinMessage
from chain.crypto import address as bech32
from chain.crypto.address import module_address
from chain.errors import InvariantBroken
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.pot import keys
from modules.pot.expected import Bank, CommunityPool, Register, Settlement, Staking
from modules.pot.params import DENOM, Params

PACKAGE: Final = "stratos.pot.v1"
FOUNDATION: Final = "foundation_account"
PREPAID: Final = "total_unissued_prepay"
REWARD_POOL: Final = "total_reward_pool"
FEE_COLLECTOR: Final = "fee_collector"
NAME: Final = "pot"
REWARD_POOL_ADDRESS: Final = module_address(REWARD_POOL)
PREPAID_ADDRESS: Final = module_address(PREPAID)
FOUNDATION_ADDRESS: Final = module_address(FOUNDATION)
POT_ADDRESS: Final = module_address(NAME)

RewardMessage: Final = message_class(f"{PACKAGE}.Reward")
ReportRecord: Final = message_class(f"{PACKAGE}.VolumeReportRecord")
TotalMessage: Final = message_class(f"{PACKAGE}.TotalReward")
Economics: Final = message_class(f"{PACKAGE}.EpochEconomics")
Approvals: Final = message_class(f"{PACKAGE}.SlashingApprovals")
_COIN_START: Final = b"\x0a" + delimited(DENOM.encode()) + b"\x12"
_Int: Final = message_class("stratos.types.v1.Int")
_Coins: Final = message_class("stratos.types.v1.Coins")
_Timestamp: Final = message_class("google.protobuf.Timestamp")


class Amounts(NamedTuple):
    """A reward, or a sum of rewards."""

    mining_wei: int
    traffic_wei: int

    @property
    def both_wei(self) -> int:
        return self.mining_wei + self.traffic_wei


def wei(amount: int) -> list[Any]:
    """Coins as messages; none for 0."""
    return [CoinMessage(denom=DENOM, amount=str(amount))] if amount else []


def amount_of(coins: Any) -> int:
    """wei in coins of our own store."""
    return sum(int(coin.amount) for coin in coins)


def amounts_of(reward: Any) -> Amounts:
    """What a Reward message gives."""
    return Amounts(amount_of(reward.reward_from_mining_pool), amount_of(reward.reward_from_traffic_pool))


def reward_message(wallet: str, amounts: Amounts) -> Any:
    return RewardMessage(wallet_address=wallet, reward_from_mining_pool=wei(amounts.mining_wei), reward_from_traffic_pool=wei(amounts.traffic_wei))


def packed(message: Any) -> bytes:
    """The stored form of a message: canonical, behind its length."""
    return delimited(encode(message))


def unpacked(cls: Any, raw: bytes) -> Any:
    """The message in its stored form."""
    return cls.FromString(undelimited(raw))


def _part(tag: bytes, amount: int) -> bytes:
    """A field of type Coin with an amount of wei."""
    digits = str(amount).encode()
    coin = _COIN_START + uvarint(len(digits)) + digits
    return tag + uvarint(len(coin)) + coin


def packed_coins(amount_wei: int) -> bytes:
    """``packed(Coins(Value=wei(amount_wei)))`` of a positive amount, written out: a report writes thousands."""
    return delimited(_part(b"\x0a", amount_wei))


def unpacked_coins(raw: bytes | None) -> int:
    """wei in the stored form of Coins, 0 for none. The form of ``packed_coins`` is read without a parser: a report reads thousands."""
    if raw is None:
        return 0
    if raw[3:9] == _COIN_START and raw[9] == len(raw) - 10:
        return int(raw[10:])
    return amount_of(unpacked(_Coins, raw).Value)


def packed_reward(wallet: str, amounts: Amounts) -> bytes:
    """``packed(reward_message(wallet, amounts))``, written out."""
    text = wallet.encode()
    mining = _part(b"\x12", amounts.mining_wei) if amounts.mining_wei else b""
    traffic = _part(b"\x1a", amounts.traffic_wei) if amounts.traffic_wei else b""
    return delimited(b"\x0a" + uvarint(len(text)) + text + mining + traffic)


class Records:
    """Reads and writes the store, and knows the other modules."""

    def __init__(self, bank: Bank, community: CommunityPool, register: Register, settlement: Settlement, staking: Staking) -> None:
        self.bank = bank
        self.community = community
        self.register = register
        self.settlement = settlement
        self.staking = staking

    def params(self, state: StateReader) -> Any:
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        state.store(keys.STORE).set(keys.PARAMS, encode(params))

    # --- epochs ---------------------------------------------------------------------------------------------------------------

    def total_mined_wei(self, state: StateReader) -> int:
        """All that was mined so far."""
        raw = state.store(keys.STORE).get(keys.TOTAL_MINED)
        return 0 if raw is None else int(unpacked(CoinMessage, raw).amount)

    def set_total_mined(self, state: StateWriter, amount_wei: int) -> None:
        state.store(keys.STORE).set(keys.TOTAL_MINED, packed(CoinMessage(denom=DENOM, amount=str(amount_wei))))

    def last_epoch(self, state: StateReader) -> int:
        """The last epoch that was reported; 0 before the first report."""
        return _int(state, keys.LAST_EPOCH)

    def set_last_epoch(self, state: StateWriter, epoch: int) -> None:
        state.store(keys.STORE).set(keys.LAST_EPOCH, packed(_Int(Value=str(epoch))))

    def matured_epoch(self, state: StateReader) -> int:
        """Everything that matures with this epoch or an earlier one has matured."""
        return _int(state, keys.MATURED_EPOCH)

    def set_matured_epoch(self, state: StateWriter, epoch: int) -> None:
        state.store(keys.STORE).set(keys.MATURED_EPOCH, packed(_Int(Value=str(epoch))))

    def last_report_ns(self, state: StateReader) -> int | None:
        """Block time of the last report, Unix nanoseconds; None before the first one."""
        raw = state.store(keys.STORE).get(keys.LAST_REPORT_TIME)
        return None if raw is None else ns_of(unpacked(_Timestamp, raw))

    def set_last_report(self, state: StateWriter, time_ns: int) -> None:
        time = _Timestamp()
        set_ns(time, time_ns)
        state.store(keys.STORE).set(keys.LAST_REPORT_TIME, packed(time))

    def report_of(self, state: StateReader, epoch: int) -> Any | None:
        """VolumeReportRecord of an epoch, or None."""
        raw = state.store(keys.STORE).get(keys.report(epoch))
        return None if raw is None else unpacked(ReportRecord, raw)

    def set_report(self, state: StateWriter, epoch: int, record: Any) -> None:
        state.store(keys.STORE).set(keys.report(epoch), packed(record))

    def reports(self, state: StateReader) -> list[tuple[int, Any]]:
        """(epoch, VolumeReportRecord), the earliest first: for export."""
        found = state.store(keys.STORE).iterate(keys.REPORTS, prefix_end(keys.REPORTS))
        return sorted(((keys.decimal_epoch(key), unpacked(ReportRecord, raw)) for key, raw in found), key=itemgetter(0))

    def total_reward(self, state: StateReader, epoch: int) -> Any | None:
        """TotalReward of an epoch, or None."""
        raw = state.store(keys.STORE).get(keys.total_reward(epoch))
        return None if raw is None else unpacked(TotalMessage, raw)

    def set_total_reward(self, state: StateWriter, epoch: int, total: Any) -> None:
        state.store(keys.STORE).set(keys.total_reward(epoch), packed(total))

    def total_rewards(self, state: StateReader) -> list[tuple[int, Any]]:
        """(epoch, TotalReward), the earliest first: for export."""
        found = state.store(keys.STORE).iterate(keys.TOTAL_REWARDS, prefix_end(keys.TOTAL_REWARDS))
        return sorted(((keys.decimal_epoch(key), unpacked(TotalMessage, raw)) for key, raw in found), key=itemgetter(0))

    def economics(self, state: StateReader, epoch: int) -> Any | None:
        """EpochEconomics of an epoch, or None where it was not reported here."""
        if not 0 <= epoch <= keys.MAX_EPOCH:
            return None
        raw = state.store(keys.STORE).get(keys.economics(epoch))
        return None if raw is None else unpacked(Economics, raw)

    def set_economics(self, state: StateWriter, economics: Any) -> None:
        state.store(keys.STORE).set(keys.economics(economics.epoch), packed(economics))

    def all_economics(self, state: StateReader) -> Iterator[Any]:
        """Every EpochEconomics, the earliest first."""
        for _, raw in state.store(keys.STORE).iterate(keys.ECONOMICS, prefix_end(keys.ECONOMICS)):
            yield unpacked(Economics, raw)

    # --- rewards --------------------------------------------------------------------------------------------------------------

    def mature_wei(self, state: StateReader, wallet: bytes) -> int:
        """What a wallet may withdraw."""
        return unpacked_coins(state.store(keys.STORE).get(keys.mature(wallet)))

    def set_mature(self, state: StateWriter, wallet: bytes, amount_wei: int) -> None:
        _put(state, keys.mature(wallet), amount_wei)

    def immature_wei(self, state: StateReader, wallet: bytes) -> int:
        """What a wallet earned and may not withdraw yet."""
        return unpacked_coins(state.store(keys.STORE).get(keys.immature(wallet)))

    def set_immature(self, state: StateWriter, wallet: bytes, amount_wei: int) -> None:
        _put(state, keys.immature(wallet), amount_wei)

    def totals(self, state: StateReader, prefix: bytes) -> Iterator[tuple[bytes, int]]:
        """(wallet, wei) of ``keys.MATURE`` or ``keys.IMMATURE``, in the order of addresses."""
        for key, raw in state.store(keys.STORE).iterate(prefix, prefix_end(prefix)):
            yield key[1:], unpacked_coins(raw)

    def reward(self, state: StateReader, maturity_epoch: int, wallet: bytes) -> Amounts | None:
        """What a wallet is paid as soon as an epoch is reported, or None."""
        raw = state.store(keys.STORE).get(keys.reward(maturity_epoch, wallet))
        return None if raw is None else amounts_of(unpacked(RewardMessage, raw))

    def add_reward(self, state: StateWriter, maturity_epoch: int, wallet: bytes, text: str, amounts: Amounts) -> None:
        """Write a new reward, its place in the index, and the wallet's immature total. ``text`` is the wallet's address."""
        store = state.store(keys.STORE)
        store.set(keys.reward(maturity_epoch, wallet), packed_reward(text, amounts))
        store.set(keys.maturity(maturity_epoch, wallet), b"")
        self.set_immature(state, wallet, self.immature_wei(state, wallet) + amounts.both_wei)

    def take_reward(self, state: StateWriter, maturity_epoch: int, wallet: bytes) -> Amounts:
        """Remove a reward that is there, with its place in the index and in the immature total; returns what it was."""
        store = state.store(keys.STORE)
        raw = store.get(keys.reward(maturity_epoch, wallet))
        if raw is None:
            raise InvariantBroken(f"{text_of(wallet)} has a place in the index of epoch {maturity_epoch} and no reward")
        amounts = amounts_of(unpacked(RewardMessage, raw))
        left = self.immature_wei(state, wallet) - amounts.both_wei
        if left < 0:
            raise InvariantBroken(f"{text_of(wallet)} has a reward of {amounts.both_wei}wei, more than its immature total")
        store.delete(keys.reward(maturity_epoch, wallet))
        store.delete(keys.maturity(maturity_epoch, wallet))
        self.set_immature(state, wallet, left)
        return amounts

    def maturing(self, state: StateReader, first_epoch: int = 0, end_epoch: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(maturity epoch, wallet) of rewards from ``first_epoch`` on, before ``end_epoch``, in that order."""
        end = prefix_end(keys.MATURITY) if end_epoch is None else keys.maturity(end_epoch)
        for key, _ in state.store(keys.STORE).iterate(keys.maturity(first_epoch), end):
            yield keys.split_maturity(key)

    def set_due(self, state: StateWriter, maturity_epoch: int, epoch: int) -> None:
        """``epoch`` is over for good as soon as ``maturity_epoch`` is reported."""
        state.store(keys.STORE).set(keys.due(maturity_epoch), keys.due_value(epoch))

    def forget_due(self, state: StateWriter, maturity_epoch: int) -> None:
        state.store(keys.STORE).delete(keys.due(maturity_epoch))

    def due_epochs(self, state: StateReader, end_epoch: int | None = None) -> Iterator[tuple[int, int]]:
        """(maturity epoch, epoch) of those whose rewards have not begun to mature, before maturity epoch ``end_epoch``."""
        end = prefix_end(keys.DUE) if end_epoch is None else keys.due(end_epoch)
        for key, value in state.store(keys.STORE).iterate(keys.DUE, end):
            yield keys.split_due(key, value)

    def reward_epoch(self, state: StateReader, maturity_epoch: int) -> int:
        """The epoch whose rewards mature with ``maturity_epoch``."""
        raw = state.store(keys.STORE).get(keys.due(maturity_epoch))
        return int.from_bytes(raw, "big") if raw is not None else maturity_epoch - int(self.params(state).mature_epoch)

    def maturity_of(self, state: StateReader, epoch: int) -> int:
        """With which epoch the rewards of ``epoch`` mature; by the present parameters where it was not reported here."""
        economics = self.economics(state, epoch)
        return int(economics.maturity_epoch) if economics is not None else epoch + int(self.params(state).mature_epoch)

    def is_maturing(self, state: StateReader, epoch: int) -> bool:
        """True while no reward of ``epoch`` has matured and some may: the time in which it can be voided."""
        economics = self.economics(state, epoch)
        return economics is not None and not economics.is_void and int(economics.maturity_epoch) > self.last_epoch(state)

    def all_approvals(self, state: StateReader) -> Iterator[Any]:
        """Every SlashingApprovals, those that have expired and are not removed yet included, by node."""
        for _, raw in state.store(keys.STORE).iterate(keys.APPROVALS, prefix_end(keys.APPROVALS)):
            yield unpacked(Approvals, raw)


def _int(state: StateReader, key: bytes) -> int:
    raw = state.store(keys.STORE).get(key)
    return 0 if raw is None else int(unpacked(_Int, raw).Value)


def _put(state: StateWriter, key: bytes, amount_wei: int) -> None:
    store = state.store(keys.STORE)
    if amount_wei:
        store.set(key, packed_coins(amount_wei))
    else:
        store.delete(key)


def text_of(wallet: bytes) -> str:
    """A wallet's address as text."""
    return bech32.encode(wallet)
