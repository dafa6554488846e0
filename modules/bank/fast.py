"""The fast twin of one common transaction: a single MsgSend of one coin, signed by one key in DIRECT mode, fee in wei, no options.

    plan   what the transaction alone decides: keys, texts, events              (once per transaction)
    run    what state decides: balances, sequence, gas; then at most eight writes  (CheckTx, recheck, proposal, block)

It only ever succeeds: where anything is not as in the plain case (``chain/tx/ante.py`` and this module's keeper), nothing is written, the
answer is None, and the plain path runs and names the error. A success gives the same writes, gas, events and bytes as the plain path;
``tests/app/test_fast_sends_equal_plain_ones.py`` holds both equal. ``fast-sends = false`` in app.toml switches it off.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.codec.varint import uvarint
from chain.coins import Coin
from chain.context import Mode
from chain.crypto import address as bech32
from chain.crypto.batch import Item
from chain.crypto.keys import EthSecp256k1PublicKey, Secp256k1PublicKey, public_key_to_any
from chain.errors import AppError
from chain.gas import CIRCUIT_LOOKUP_COST, DELETE_COST, HAS_COST, READ_COST_FLAT, READ_COST_PER_BYTE, WRITE_COST_FLAT, WRITE_COST_PER_BYTE
from chain.store.state import State
from chain.tx import fees
from chain.tx.ante import ETH_SIGNATURE_GAS, MAX_GAS_LIMIT
from chain.tx.decode import Tx, Verdict, decode_tx
from chain.tx.execution import BlockInfo, Outcome, TxMsgData
from chain.tx.verdicts import Verdicts
from modules.bank import keys
from modules.bank.fast_shape import KEY_TYPES, PLAIN_KEYS, PlainKey, Shape, read_shape
from modules.bank.keeper import MAX_BITS, Params

SEND: Final = "cosmos.bank.v1beta1.MsgSend"
MAX_KNOWN_ACCOUNTS: Final = 100_000
MAX_PLAIN_BYTES: Final = 256
"""A plain account with a key is half as long; longer ones are not remembered."""
_DIRECT: Final = 1
_CHECKS: Final = (Mode.CHECK, Mode.RECHECK)
_ANTE_ONLY: Final = (Mode.CHECK, Mode.RECHECK, Mode.PROPOSE)
_FEE_DENOM: Final = fees.BASE_DENOM.encode()
_ACCOUNT_HEAD: Final = b"\x0a\x20/cosmos.auth.v1beta1.BaseAccount\x12"
_DATA: Final = encode(TxMsgData(msg_responses=[pack_any(message_class(f"{SEND}Response")())]))
_DATA_FIELD: Final = b"\x12" + uvarint(len(_DATA)) + _DATA
_BYTE: Final = READ_COST_PER_BYTE
_WRITTEN: Final = WRITE_COST_PER_BYTE


@dataclass(frozen=True, slots=True)
class Accounts:
    """What this twin knows of accounts: their keys, and the decoder of the plain path."""

    store: str
    params_key: bytes
    account_key: Callable[[bytes], bytes]
    number_key: Callable[[int], bytes]
    decode: Callable[[bytes], Any]
    decode_params: Callable[[bytes], Any]
    fee_collector: bytes


@dataclass(frozen=True, slots=True)
class _Coin:
    """What the denom decides: its send-enabled key, its parts of balance and holder keys, and the gas of moving it but for sizes of values."""

    enabled: bytes
    balance_head: bytes
    tail: bytes
    holder_head: bytes
    gas: int


@dataclass(slots=True)
class _Plan:
    sender: bytes
    account_key: bytes
    recipient_key: bytes
    public_key: PlainKey
    sequence: int
    amount: int
    fee: int
    priority: int
    coin: _Coin
    balances: tuple[bytes, ...]  # keys: of the sender, of the recipient, and unless the coin is wei, of the sender in wei
    holders: tuple[bytes, bytes, bytes]
    values: tuple[bytes, ...]  # texts that the events show: sender, recipient, fee, amount, sequence, signature
    ante_events: bytes = b""


@dataclass(slots=True)
class _Known:
    """A plain account as stored, taken apart. Before its first transaction it has no key: that is written between address and number."""

    prefix: bytes  # its encoding without the sequence
    sequence: int
    number: int
    number_key: bytes
    public_key: PlainKey | None
    around: tuple[bytes, bytes] = (b"", b"")  # without a key: what stands before and behind it


@dataclass(slots=True)
class _Rules:
    """Costs that parameters decide."""

    per_byte: int
    secp256k1: int
    gas: int  # three reads of the parameters


class PlannedTx(Tx):
    """A plain send whose protobuf form is decoded only when something asks for it."""

    __slots__ = ("signed_size",)

    def __init__(self, raw: bytes, tx_hash: bytes, plan: _Plan, shape: Shape, sender: bytes) -> None:
        self.signed_size = shape.signed_size
        self.raw, self.hash, self.plan = raw, tx_hash, plan
        self.signatures, self.signers = (shape.signature,), (sender,)
        self.fee, self.gas_limit = (Coin(fees.BASE_DENOM, plan.fee),), shape.gas_limit
        self.payer = self.granter = None
        self.has_non_critical, self.held = False, {}

    def __getattr__(self, name: str) -> Any:
        whole = decode_tx(self.raw)
        for field in ("body_bytes", "auth_info_bytes", "body", "auth_info", "messages", "message_signers", "signer_infos"):
            setattr(self, field, getattr(whole, field))
        return object.__getattribute__(self, name)

    @property
    def first_sequence(self) -> int:
        return int(self.plan.sequence)


class FastSends:
    """Runs plain sends (module docstring). ``min_gas_prices`` as in the ante chain; ``check`` is MsgSend's stateless check."""

    def __init__(
        self,
        accounts: Accounts,
        verdicts: Verdicts,
        min_gas_prices: fees.GasPrices,
        blocked: Callable[[bytes], bool],
        check: Callable[[Any], None],
    ) -> None:
        self._accounts = accounts
        self._verdicts = verdicts
        self._covers: Callable[[int, int], bool] = lru_cache(maxsize=4096)(lambda fee, gas: _covers(fee, gas, min_gas_prices))
        self._blocked = blocked
        self._check = check
        self._collector_account = accounts.account_key(accounts.fee_collector)
        self._collector_text = bech32.encode(accounts.fee_collector).encode()
        self._collector_balance = keys.balance(accounts.fee_collector, fees.BASE_DENOM)
        self._collector_holder = keys.holder(fees.BASE_DENOM, accounts.fee_collector)
        self._known: dict[bytes, _Known | Literal[False]] = {}
        self._rules: Callable[[bytes], _Rules] = lru_cache(maxsize=16)(self._read_rules)
        self._default_enabled: Callable[[bytes], bool] = lru_cache(maxsize=16)(lambda raw: bool(Params.FromString(raw).default_send_enabled))

    def run(self, state: State, block: BlockInfo, tx: Tx, mode: Mode, block_gas_left: int | None) -> Outcome | None:
        """The outcome of a plain send that succeeds, or None with nothing written."""
        plan = tx.plan
        if plan is None:
            plan = tx.plan = self._plan(tx) or False
        if plan is False or mode is Mode.SIMULATE or mode is Mode.GENESIS or block.height <= 0:
            return None
        auth, bank = state.store(self._accounts.store), state.store(keys.STORE)
        look, hold = auth.peek, bank.peek
        account_raw, params_raw, collector_raw = look(plan.account_key), look(self._accounts.params_key), look(self._collector_account)
        if account_raw is None or params_raw is None or collector_raw is None:
            return None
        known = self._known.get(account_raw)
        if known is None:
            known = self._learn(account_raw)
        if not known or known.sequence != plan.sequence:
            return None
        rules = self._rules(params_raw)
        balances, holders = plan.balances, plan.holders
        same = len(balances) == 2
        paying_raw, collected_raw = hold(balances[0 if same else 2]), hold(self._collector_balance)
        if paying_raw is None:
            return None
        paid = int(paying_raw) - plan.fee
        collected = (0 if collected_raw is None else int(collected_raw)) + plan.fee
        if paid <= 0 or collected.bit_length() > MAX_BITS:
            return None
        if mode in _CHECKS:
            if 0 < block.max_gas < tx.gas_limit:
                return None
            if not self._covers(plan.fee, tx.gas_limit):
                return None
        key = known.public_key or plan.public_key
        if mode is not Mode.RECHECK and not self._verdicts.signature_holds(tx, 0, key, block.chain_id, known.number):
            return None
        prefix, sequence = known.prefix, plan.sequence + 1
        account_gas = 7 * _BYTE * len(account_raw)
        if known.public_key is None:  # half of the accesses find the account with its key, which takes one more write
            prefix = known.around[0] + _key_field(key) + known.around[1]
            keyed_size = len(_stored(prefix, plan.sequence))
            account_gas = _BYTE * 4 * (len(account_raw) + keyed_size) + _SET_KEY_GAS + _WRITTEN * keyed_size
        new_account = _stored(prefix, sequence)
        paid_raw, new_collected = b"%d" % paid, b"%d" % collected
        gas = (
            _ANTE_GAS
            + rules.gas
            + rules.per_byte * len(tx.raw)
            + (ETH_SIGNATURE_GAS if isinstance(key, EthSecp256k1PublicKey) else rules.secp256k1)
            + account_gas
            + _BYTE * (len(collector_raw) + len(paying_raw) + (0 if collected_raw is None else len(collected_raw)))
            + _WRITTEN * (len(paid_raw) + len(new_collected) + len(new_account))
        )
        if gas > tx.gas_limit:
            return None
        if mode in _ANTE_ONLY:
            if block_gas_left is not None:
                return None
            bank.put({holders[2]: b"", balances[0 if same else 2]: paid_raw, self._collector_holder: b"", self._collector_balance: new_collected})
            events = self._ante_events(plan) if mode is Mode.CHECK else b""
            data, answer = b"", b""
        else:
            bank_params, recipient_raw = hold(keys.PARAMS), look(plan.recipient_key)
            if recipient_raw is None or hold(plan.coin.enabled) is not None or not self._default_enabled(bank_params or b""):
                return None
            spending_raw = paid_raw if same else hold(balances[0])
            received_raw = hold(balances[1])
            if spending_raw is None:
                return None
            spent = int(spending_raw) - plan.amount
            received = (0 if received_raw is None else int(received_raw)) + plan.amount
            if spent <= 0 or received.bit_length() > MAX_BITS:
                return None
            spent_raw, new_received = b"%d" % spent, b"%d" % received
            gas += (
                plan.coin.gas
                + _BYTE * (len(bank_params or b"") + len(new_account) + len(spending_raw) + (0 if received_raw is None else len(received_raw)))
                + _WRITTEN * (len(spent_raw) + len(new_received))
            )
            if gas > tx.gas_limit or (block_gas_left is not None and gas > block_gas_left):
                return None
            if not same:
                bank.put({holders[2]: b"", balances[2]: paid_raw})
            bank.put(
                {
                    holders[0]: b"",
                    balances[0]: spent_raw,
                    holders[1]: b"",
                    balances[1]: new_received,
                    self._collector_holder: b"",
                    self._collector_balance: new_collected,
                }
            )
            s, r, _, a, _, _ = plan.values
            events = (plan.ante_events or self._ante_events(plan)) + _message_template(len(s), len(r), len(a)) % (s, s, a, r, a, r, s, a, s)
            data, answer = _DATA_FIELD, _DATA
        auth.put({known.number_key: plan.sender, plan.account_key: new_account})
        if new_account not in self._known:
            if len(self._known) > MAX_KNOWN_ACCOUNTS:
                self._known.clear()
            self._known[new_account] = _Known(prefix, sequence, known.number, known.number_key, key)
        encoded = data + b"\x28" + uvarint(tx.gas_limit) + b"\x30" + uvarint(gas) + events
        return Outcome(None, answer, tx.gas_limit, gas, [], plan.priority, encoded)

    def read(self, raw: bytes, tx_hash: bytes) -> Tx | None:
        """A transaction in the one shape this twin knows, decoded and planned; None leaves it to the plain decoder."""
        shape = read_shape(raw)
        if shape is None:
            return None
        try:
            key, key_address, key_text = _signer(shape.key_type, shape.key)
            if key_text != shape.sender:
                return None
            recipient = bech32.decode(shape.recipient.decode())
        except AppError:
            return None
        if shape.gas_limit > MAX_GAS_LIMIT:
            return None
        amount, fee = int(shape.amount), int(shape.fee)
        if amount.bit_length() > MAX_BITS or fee.bit_length() > MAX_BITS:
            return None
        plan = self._plan_of(
            key,
            key_address,
            recipient,
            key_text,
            shape.recipient,
            shape.denom.decode(),
            amount,
            fee,
            shape.gas_limit,
            shape.sequence,
            shape.signature,
        )
        return None if plan is None else PlannedTx(raw, tx_hash, plan, shape, key_address)

    def item(self, state: State, tx: Tx, chain_id: str) -> tuple[Tx, Item, Verdict] | None:
        """The signature check of a transaction that ``read`` gave against the account as it is now; None for others and without account."""
        if not isinstance(tx, PlannedTx):
            return None
        plan = tx.plan
        raw = state.store(self._accounts.store).peek(plan.account_key)
        if raw is None:
            return None
        known = self._known.get(raw)
        if known is None:
            known = self._learn(raw)
        if not known:
            return None
        number = known.number
        document = tx.raw[: tx.signed_size] + _chain_field(chain_id) + (b"\x20" + uvarint(number) if number else b"")
        key = known.public_key or plan.public_key
        return tx, Item(key.raw, key.digest(document), tx.signatures[0][:64]), (chain_id, number, key.raw)

    def _plan(self, tx: Tx) -> _Plan | None:
        """What this transaction alone decides; None if it is not a plain send that could succeed."""
        if len(tx.messages) != 1 or len(tx.signers) != 1 or len(tx.signer_infos) != 1 or len(tx.signatures) != 1 or len(tx.fee) != 1:
            return None
        message, body, info = tx.messages[0], tx.body, tx.signer_infos[0]
        if message.DESCRIPTOR.full_name != SEND or len(message.amount) != 1 or tx.payer is not None or tx.granter is not None:
            return None
        if body.memo or body.timeout_height or body.extension_options or not 0 < tx.gas_limit <= MAX_GAS_LIMIT:
            return None
        key = info.public_key
        if not isinstance(key, Secp256k1PublicKey | EthSecp256k1PublicKey) or info.mode.WhichOneof("sum") != "single":
            return None
        if info.mode.single.mode != _DIRECT or tx.fee[0].denom != fees.BASE_DENOM or tx.fee[0].amount <= 0:
            return None
        try:
            self._check(message)
            if fees.to_base(tx.fee) != tx.fee:
                return None
            recipient = bech32.decode(message.to_address)
        except AppError:
            return None
        sender, denom = tx.signers[0], message.amount[0].denom
        amount = int(message.amount[0].amount)
        if key.address != sender or body.messages[0].type_url != f"/{SEND}" or str(amount) != message.amount[0].amount:
            return None
        if message.from_address != bech32.encode(sender) or message.to_address != bech32.encode(recipient):
            return None
        return self._plan_of(
            key,
            sender,
            recipient,
            message.from_address.encode(),
            message.to_address.encode(),
            denom,
            amount,
            tx.fee[0].amount,
            tx.gas_limit,
            info.sequence,
            tx.signatures[0],
        )

    def _plan_of(
        self,
        key: PlainKey,
        sender: bytes,
        recipient: bytes,
        s: bytes,
        r: bytes,
        denom: str,
        amount: int,
        fee: int,
        gas_limit: int,
        sequence: int,
        signature: bytes,
    ) -> _Plan | None:
        if recipient == sender or len(sender) != 20 or len(recipient) != 20 or self._blocked(recipient):
            return None
        if recipient == self._accounts.fee_collector or sequence >= (1 << 64) - 1:
            return None
        coin = _coin_keys(denom)
        balances = coin.balance_head + sender + coin.tail, coin.balance_head + recipient + coin.tail
        values = (s, r, b"%d%b" % (fee, _FEE_DENOM), b"%d%b" % (amount, coin.tail), b"%b/%d" % (s, sequence), b64encode(signature))
        return _Plan(
            sender,
            self._accounts.account_key(sender),
            self._accounts.account_key(recipient),
            key,
            sequence,
            amount,
            fee,
            min(fee // gas_limit, fees.MAX_PRIORITY),
            coin,
            balances if coin is _WEI else (*balances, _WEI.balance_head + sender + _WEI.tail),
            (coin.holder_head + sender, coin.holder_head + recipient, _WEI.holder_head + sender),
            values,
        )

    def _ante_events(self, plan: _Plan) -> bytes:
        """The encoded events of the ante chain."""
        s, _, f, _, q, g = plan.values
        c = self._collector_text
        plan.ante_events = _ante_template(len(s), len(f), len(q), len(g)) % (s, f, c, f, c, s, f, s, f, s, q, g)
        return plan.ante_events

    def _learn(self, raw: bytes) -> _Known | Literal[False]:
        """Take a stored account apart; False unless it is a plain one with a key of its own or none yet."""
        if len(raw) > MAX_PLAIN_BYTES:
            return False
        account = self._accounts.decode(raw)
        message, key = account.message, account.public_key
        known: _Known | Literal[False] = False
        if message.DESCRIPTOR.full_name == "cosmos.auth.v1beta1.BaseAccount" and (key is None or isinstance(key, PLAIN_KEYS)):
            bare = type(message)()
            bare.CopyFrom(message)
            bare.ClearField("sequence")
            prefix, number = encode(bare), account.account_number
            if _stored(prefix, account.sequence) == raw:
                head = encode(type(message)(address=message.address))
                known = _Known(prefix, account.sequence, number, self._accounts.number_key(number), key, (head, prefix[len(head) :]))
        if len(self._known) > MAX_KNOWN_ACCOUNTS:
            self._known.clear()
        self._known[raw] = known
        return known

    def _read_rules(self, raw: bytes) -> _Rules:
        params = self._accounts.decode_params(raw)
        if params.tx_sig_limit < 1:
            return _Rules(0, 1 << 64, 0)  # no gas limit allows it: the plain path refuses
        return _Rules(params.tx_size_cost_per_byte, params.sig_verify_cost_secp256k1, 3 * (READ_COST_FLAT + _BYTE * (1 + len(raw))))


def _covers(fee_wei: int, gas_limit: int, prices: fees.GasPrices) -> bool:
    try:
        fees.require_minimum((Coin(fees.BASE_DENOM, fee_wei),), gas_limit, prices)
    except AppError:
        return False
    return True


def _read(times: int, key_size: int) -> int:
    return times * (READ_COST_FLAT + _BYTE * key_size)


def _write(times: int, size: int) -> int:
    return times * (WRITE_COST_FLAT + _WRITTEN * size)


_WEI_BALANCE: Final = 22 + len(fees.BASE_DENOM)
_WEI_HOLDER: Final = 23 + len(fees.BASE_DENOM)
_ANTE_GAS: Final = (
    CIRCUIT_LOOKUP_COST
    + _read(7, 21)  # the sender: payer, locked coins, key, signature cost, signature, sequence, old number
    + _read(1, 21)  # the fee collector
    + _read(2, _WEI_BALANCE)
    + _write(2, _WEI_HOLDER)
    + _write(2, _WEI_BALANCE)
    + HAS_COST  # the fee collector's account
    + DELETE_COST
    + HAS_COST  # the place in the index by number
    + _write(1, 21 + 20)
    + _write(1, 21)
)
"""Everything but the sizes of values, the transaction's size and the signature."""

_SET_KEY_GAS: Final = _read(1, 21) + DELETE_COST + HAS_COST + _write(1, 21 + 20) + _write(1, 21)
"""What it takes more to write the key of an account that has none, but for the sizes of values."""


@lru_cache(maxsize=1024)
def _coin_keys(denom: str) -> _Coin:
    enabled = READ_COST_FLAT + _BYTE * len(keys.PARAMS) + HAS_COST
    moves = _read(2, 22 + len(denom)) + _write(2, 23 + len(denom)) + _write(2, 22 + len(denom))
    gas = CIRCUIT_LOOKUP_COST + enabled + _read(1, 21) + moves + HAS_COST
    return _Coin(keys.send_enabled(denom), *keys.plain_heads(denom), gas)


_WEI: Final = _coin_keys(fees.BASE_DENOM)


def _stored(prefix: bytes, sequence: int) -> bytes:
    """An account in stored form, from its encoding without the sequence."""
    body = prefix + b"\x20" + uvarint(sequence) if sequence else prefix
    return _ACCOUNT_HEAD + uvarint(len(body)) + body


@lru_cache(maxsize=16_384)
def _key_field(key: PlainKey) -> bytes:
    raw = encode(public_key_to_any(key))
    return b"\x12" + uvarint(len(raw)) + raw


@lru_cache(maxsize=16)
def _chain_field(chain_id: str) -> bytes:
    return b"\x1a" + uvarint(len(chain_id)) + chain_id.encode()


@lru_cache(maxsize=65_536)
def _signer(type_url: str, raw: bytes) -> tuple[PlainKey, bytes, bytes]:
    """(key, address, address as text). Raises InvalidPubKey."""
    key = KEY_TYPES[type_url](raw)
    return key, key.address, bech32.encode(key.address).encode()


Slot: TypeAlias = "int | str"
"""The size of a value that is filled in, or a value that never changes."""


@lru_cache(maxsize=4096)
def _ante_template(sender: int, fee: int, sequence: int, signature: int) -> bytes:
    """The events of the ante chain for values of these sizes, with ``%b`` where they go."""
    collector = len(bech32.encode(bytes(20)))
    ante: list[tuple[str, Mapping[str, Slot]]] = [
        ("coin_spent", {"spender": sender, "amount": fee}),
        ("coin_received", {"receiver": collector, "amount": fee}),
        ("transfer", {"recipient": collector, "sender": sender, "amount": fee}),
        ("message", {"sender": sender}),
        ("tx", {"fee": fee, "fee_payer": sender}),
        ("tx", {"acc_seq": sequence}),
        ("tx", {"signature": signature}),
    ]
    return b"".join(_event(*one) for one in ante)


@lru_cache(maxsize=4096)
def _message_template(sender: int, recipient: int, amount: int) -> bytes:
    """The events of the message, likewise."""
    index: Mapping[str, Slot] = {"msg_index": "0"}
    message: list[tuple[str, Mapping[str, Slot]]] = [
        ("message", {"action": f"/{SEND}", "sender": sender, "module": "bank", **index}),
        ("coin_spent", {"spender": sender, "amount": amount, **index}),
        ("coin_received", {"receiver": recipient, "amount": amount, **index}),
        ("transfer", {"recipient": recipient, "sender": sender, "amount": amount, **index}),
        ("message", {"sender": sender, **index}),
    ]
    return b"".join(_event(*one) for one in message)


def _event(kind: str, attributes: Mapping[str, Slot]) -> bytes:
    """Field ``events`` of ExecTxResult as a template."""
    text = kind.encode()
    parts, size = [b"\x0a", _size(len(text)), text], 1 + len(uvarint(len(text))) + len(text)
    for key, value in attributes.items():
        name, value_size = key.encode(), value if isinstance(value, int) else len(value)
        head = b"\x0a" + uvarint(len(name)) + name + b"\x12" + uvarint(value_size)
        whole = len(head) + value_size + 2
        filled = b"%b" if isinstance(value, int) else value.encode()
        parts += [b"\x12", _size(whole), head.replace(b"%", b"%%"), filled, b"\x18\x01"]
        size += 1 + len(uvarint(whole)) + whole
    return b"\x3a" + _size(size) + b"".join(parts)


def _size(value: int) -> bytes:
    """A length prefix inside a template."""
    return uvarint(value).replace(b"%", b"%%")
