"""Who signs and how: every key type, mode and combination through CheckTx and a block, and every way a signature must not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import MAX_MULTISIG_DEPTH, MultisigPublicKey, PrivateKey, PublicKey, Secp256r1PublicKey, public_key_to_any
from chain.errors import TxDecodeError, WrongSequence
from chain.gas import GasMeter
from chain.testing.driver import Driver, TxResult
from chain.tx.decode import AuthInfo, TxBody, TxRaw, decode_tx
from chain.tx.signing import DIRECT, DIRECT_AUX, LEGACY_AMINO_JSON, sign_bytes
from tests.support import CHAIN_ID, FEE, GAS, KEYS, chain, key, send, text

MultiSignature = message_class("cosmos.crypto.multisig.v1beta1.MultiSignature")
SignerInfo = message_class("cosmos.tx.v1beta1.SignerInfo")
MsgSend = message_class("cosmos.bank.v1beta1.MsgSend")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
TEXTUAL, UNSPECIFIED = 2, 0
AMINO = LEGACY_AMINO_JSON


class PassKey:
    """A P-256 key, as secure hardware signs."""

    def __init__(self, secret: int) -> None:
        self._key = ec.derive_private_key(secret, ec.SECP256R1())
        self.public_key = Secp256r1PublicKey(self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint))

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


@dataclass
class Multisig:
    """``threshold`` of ``members``, of which those at ``signing`` sign."""

    threshold: int
    members: Sequence[Any]
    signing: Sequence[int]
    modes: dict[int, int] = field(default_factory=dict)

    @property
    def public_key(self) -> MultisigPublicKey:
        return MultisigPublicKey(self.threshold, tuple(member.public_key for member in self.members))


@dataclass
class By:
    """One signer of a transaction."""

    who: Any
    sequence: int = 0
    number: int = 0
    mode: int = DIRECT


def mode_info(by: Any, mode: int) -> Any:
    info = message_class("cosmos.tx.v1beta1.ModeInfo")()
    if not isinstance(by, Multisig):
        info.single.mode = mode
        return info
    bits = ["1" if at in by.signing else "0" for at in range(len(by.members))]
    info.multi.bitarray.extra_bits_stored = len(bits) % 8
    info.multi.bitarray.elems = bytes(int("".join(bits[at : at + 8]).ljust(8, "0"), 2) for at in range(0, len(bits), 8))
    info.multi.mode_infos.extend(mode_info(by.members[at], by.modes.get(at, mode)) for at in by.signing)
    return info


def signature_of(who: Any, mode: int, document: Any) -> bytes:
    if not isinstance(who, Multisig):
        found: bytes = who.sign(document(mode))
        return found
    parts = [signature_of(who.members[at], who.modes.get(at, mode), document) for at in who.signing]
    raw: bytes = MultiSignature(signatures=parts).SerializeToString()
    return raw


def transaction(messages: Sequence[Any], signers: Sequence[By], *, body: dict[str, Any] | None = None, payer: str = "") -> bytes:
    tx_body = TxBody(**(body or {}))
    for one in messages:
        tx_body.messages.add(type_url="/" + one.DESCRIPTOR.full_name, value=encode(one))
    info = AuthInfo()
    info.fee.amount.extend(to_messages(FEE))
    info.fee.gas_limit, info.fee.payer = GAS, payer
    for by in signers:
        one_signer = SignerInfo(public_key=public_key_to_any(by.who.public_key), sequence=by.sequence)
        one_signer.mode_info.CopyFrom(mode_info(by.who, by.mode))
        info.signer_infos.append(one_signer)
    raws = {"body_bytes": encode(tx_body), "auth_info_bytes": encode(info)}
    tx = decode_tx(TxRaw(**raws, signatures=[b""] * len(signers)).SerializeToString())

    def document(by: By) -> Any:
        return lambda mode: sign_bytes(
            tx,
            mode,
            chain_id=CHAIN_ID,
            account_number=by.number,
            sequence=by.sequence,
            key=by.who.public_key,
            signer=by.who.public_key.address,
        )

    signatures = [signature_of(by.who, by.mode, document(by)) for by in signers]
    raw: bytes = TxRaw(**raws, signatures=signatures).SerializeToString()
    return raw


def send_from(public_key: PublicKey, amount: int = 5) -> Any:
    return MsgSend(from_address=bech32.encode(public_key.address), to_address=text(KEYS[3]), amount=to_messages((Coin("wei", amount),)))


def funded(*keys: PublicKey) -> tuple[Driver, list[int]]:
    """A chain on which these keys' accounts have coins, and their account numbers."""
    driver = chain()
    message = [MsgSend(from_address=text(KEYS[2]), to_address=bech32.encode(one.address), amount=to_messages((Coin("wei", 10**21),))) for one in keys]
    result = deliver(driver, transaction(message, [By(KEYS[2], 0, 2)]))
    assert result.code == 0, result.log
    request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")
    path = "/cosmos.auth.v1beta1.Query/AccountInfo"
    answers = [driver.apps[0].query_rpc(path, request(address=bech32.encode(one.address)))[0] for one in keys]  # type: ignore[attr-defined]
    return driver, [answer.info.account_number for answer in answers]


def deliver(driver: Driver, raw: bytes) -> TxResult:
    return driver.next_block([raw]).results[0]


def both(driver: Driver, raw: bytes) -> TxResult:
    """The result in a block; CheckTx says the same."""
    checked = driver.check_tx(raw)
    result = deliver(driver, raw)
    assert (checked.codespace, checked.code) == (result.codespace, result.code), (checked.log, result.log)
    return result


SINGLE: dict[str, Any] = {"secp256k1": key(30), "eth_secp256k1": key(31, "eth_secp256k1"), "secp256r1": PassKey(32)}


@pytest.mark.parametrize("mode", [DIRECT, AMINO], ids=["DIRECT", "LEGACY_AMINO_JSON"])
@pytest.mark.parametrize("kind", SINGLE)
def test_every_key_type_signs_in_both_modes_again_and_again(kind: str, mode: int) -> None:
    who = SINGLE[kind]
    driver, [number] = funded(who.public_key)
    for sequence in range(2):
        result = both(driver, transaction([send_from(who.public_key)], [By(who, sequence, number, mode)]))
        assert result.code == 0, result.log


def test_a_secp256r1_signature_costs_half_of_a_secp256k1_one(monkeypatch: pytest.MonkeyPatch) -> None:
    charged: dict[str, int] = {}
    consume = GasMeter.consume

    def watch(meter: GasMeter, amount: int, descriptor: str) -> None:
        charged[descriptor] = amount
        consume(meter, amount, descriptor)

    who = SINGLE["secp256r1"]
    driver, [number] = funded(who.public_key)
    monkeypatch.setattr(GasMeter, "consume", watch)
    assert deliver(driver, transaction([send_from(who.public_key)], [By(who, 0, number)])).code == 0
    assert {what: amount for what, amount in charged.items() if "verify" in what} == {"ante verify: secp256r1": 1000 // 2}


MEMBERS: dict[str, list[Any]] = {
    "plain members": [key(40), key(41), key(42)],
    "eth members": [key(43, "eth_secp256k1"), key(44, "eth_secp256k1"), key(45, "eth_secp256k1")],
    "mixed members": [key(40), key(44, "eth_secp256k1"), key(42)],
}


@pytest.mark.parametrize("mode", [DIRECT, AMINO], ids=["DIRECT", "LEGACY_AMINO_JSON"])
@pytest.mark.parametrize("members", MEMBERS)
def test_a_multisig_signs_with_members_of_any_kind(members: str, mode: int) -> None:
    group = Multisig(2, MEMBERS[members], [0, 2])
    driver, [number] = funded(group.public_key)
    for sequence, signing in enumerate(([0, 2], [0, 1], [0, 1, 2])):
        group.signing = signing
        result = both(driver, transaction([send_from(group.public_key)], [By(group, sequence, number, mode)]))
        assert result.code == 0, result.log


def test_each_member_of_a_multisig_may_sign_in_a_mode_of_its_own() -> None:
    group = Multisig(2, MEMBERS["mixed members"], [0, 1], {0: AMINO, 1: DIRECT})
    driver, [number] = funded(group.public_key)
    assert both(driver, transaction([send_from(group.public_key)], [By(group, 0, number)])).code == 0


def test_a_multisig_within_a_multisig_signs_and_its_events_list_every_part() -> None:
    inner = Multisig(2, [key(50), key(51, "eth_secp256k1"), key(52)], [0, 1])
    outer = Multisig(2, [key(53), inner, key(54)], [0, 1])
    driver, [number] = funded(outer.public_key)
    result = both(driver, transaction([send_from(outer.public_key)], [By(outer, 0, number, AMINO)]))
    assert result.code == 0, result.log
    signatures = [value for kind, pairs in result.events if kind == "tx" for name, value in pairs if name == "signature"]
    assert len(signatures) == 1 + 3 + 1, "the plain member's, the inner one's two and their sum, and the sum of all"
    assert len(set(signatures)) == len(signatures)
    inner.signing = [0]
    refused = both(driver, transaction([send_from(outer.public_key)], [By(outer, 1, number, AMINO)]))
    assert (refused.codespace, refused.code) == ("sdk", 4), "the inner one is below its threshold"


def nested(raw: bytes, levels: int, leaf: bytes) -> bytes:
    """``raw`` with its first signature and sign mode wrapped in ``levels`` multisigs of one member, whatever its key is."""
    parts = TxRaw.FromString(raw)
    info = AuthInfo.FromString(parts.auth_info_bytes)
    mode, signature = info.signer_infos[0].mode_info, leaf
    for _ in range(levels):
        outer = type(mode)()
        outer.multi.bitarray.extra_bits_stored, outer.multi.bitarray.elems = 1, b"\x80"
        outer.multi.mode_infos.append(mode)
        mode, signature = outer, MultiSignature(signatures=[signature]).SerializeToString()
    info.signer_infos[0].mode_info.CopyFrom(mode)
    parts.auth_info_bytes, parts.signatures[0] = info.SerializeToString(), signature
    again: bytes = parts.SerializeToString()
    return again


def test_sign_modes_nested_deeper_than_keys_may_be_are_refused_before_their_events_double_at_each_level() -> None:
    driver = chain()
    deepest = nested(send(0, 1), MAX_MULTISIG_DEPTH, b"x" * 1000)
    with pytest.raises(WrongSequence):  # that far it comes: the sequence of the only transaction there was
        driver.apps[0].simulate(deepest)  # type: ignore[attr-defined]
    bomb = nested(send(0, 1), MAX_MULTISIG_DEPTH + 1, b"x" * 1000)
    with pytest.raises(TxDecodeError, match="nest deeper than 4"):
        driver.apps[0].simulate(bomb)  # type: ignore[attr-defined]
    assert both(driver, bomb).code == TxDecodeError.code


def respell(raw: bytes, change: Any) -> bytes:
    parts = TxRaw.FromString(raw)
    changed = change(parts.signatures[0])
    del parts.signatures[:]
    parts.signatures.append(changed)
    again: bytes = parts.SerializeToString()
    return again


def swap(signature: bytes) -> bytes:
    raw: bytes = MultiSignature(signatures=list(reversed(MultiSignature.FromString(signature).signatures))).SerializeToString()
    return raw


@pytest.mark.parametrize(
    "change",
    [
        lambda signature: signature + b"\x7a\x01x",
        lambda signature: signature[:1] + b"\xc0\x00" + signature[2:],
        swap,
        lambda signature: signature + signature[:66],
        lambda signature: signature[:-1],
        lambda signature: b"",
    ],
    ids=["an unknown field", "a longer varint", "the members' order", "one more", "cut short", "empty"],
)
def test_a_multisigs_signature_has_one_spelling_alone(change: Any) -> None:
    """The wrapping of the members' signatures is signed by nobody: whoever relays it must not be able to make another transaction of it."""
    group = Multisig(2, MEMBERS["plain members"], [0, 2])
    driver, [number] = funded(group.public_key)
    raw = transaction([send_from(group.public_key)], [By(group, 0, number, AMINO)])
    changed = respell(raw, change)
    assert changed != raw
    result = both(driver, changed)
    assert (result.codespace, result.code) == ("sdk", 4), result.log
    assert both(driver, raw).code == 0


@pytest.mark.parametrize(
    ("who", "signatures"), [(SINGLE["secp256k1"], 1), (Multisig(2, MEMBERS["plain members"], [0, 1]), 7)], ids=["one key", "multisig"]
)
def test_a_simulation_without_signatures_pays_for_the_bytes_of_as_many_as_may_come(who: Any, signatures: int) -> None:
    """112 bytes, 10 of gas each: once for a key, for a multisig as many times as a transaction may have signatures."""
    driver, [number] = funded(who.public_key)
    assert deliver(driver, transaction([send_from(who.public_key)], [By(who, 0, number, AMINO)])).code == 0
    signed = transaction([send_from(who.public_key)], [By(who, 1, number, AMINO)])
    parts = TxRaw.FromString(signed)
    parts.signatures[0] = b""
    unsigned = parts.SerializeToString()
    with_it, without = (driver.apps[0].simulate(raw).gas_info.gas_used for raw in (signed, unsigned))  # type: ignore[attr-defined]
    with driver.apps[0].store.view() as view:  # type: ignore[attr-defined]
        account = b"\x01" + who.public_key.address
        key_is_looked_up = 1000 + 3 * len(account + view.store("acc").get(account))
    assert without - with_it == 10 * (signatures * 112 - (len(signed) - len(unsigned))) + key_is_looked_up


def test_fewer_members_than_the_threshold_or_another_bit_array_do_not_sign() -> None:
    group = Multisig(2, MEMBERS["plain members"], [0])
    driver, [number] = funded(group.public_key)
    assert both(driver, transaction([send_from(group.public_key)], [By(group, 0, number, AMINO)])).code == 4
    group.signing = [0, 2]
    raw = transaction([send_from(group.public_key)], [By(group, 0, number, AMINO)])
    parts = TxRaw.FromString(raw)
    for elems, extra in ((b"\xe0", 3), (b"\xa0", 4), (b"\xa0\x00", 3), (b"", 3), (b"\xa0", 11), (b"\xa0", 0)):
        info = AuthInfo.FromString(parts.auth_info_bytes)
        bits = info.signer_infos[0].mode_info.multi.bitarray
        bits.elems, bits.extra_bits_stored = elems, extra
        changed = TxRaw(body_bytes=parts.body_bytes, auth_info_bytes=encode(info), signatures=parts.signatures)
        result = both(driver, changed.SerializeToString())
        assert (result.codespace, result.code) == ("sdk", 4), (elems, extra, result.log)


def test_a_multisig_beyond_the_limit_of_signatures_is_refused() -> None:
    group = Multisig(1, [key(60 + at) for at in range(8)], [0])
    driver, [number] = funded(group.public_key)
    result = both(driver, transaction([send_from(group.public_key)], [By(group, 0, number, AMINO)]))
    assert (result.codespace, result.code) == ("sdk", 14)


def test_several_signers_sign_in_the_order_of_their_messages_each_in_a_mode_of_its_own() -> None:
    driver = chain()
    messages = [send_from(KEYS[4].public_key), send_from(KEYS[1].public_key), send_from(KEYS[4].public_key, 7)]
    good = [By(KEYS[4], 0, 4, AMINO), By(KEYS[1], 0, 1)]
    wrong_order = both(driver, transaction(messages, list(reversed(good))))
    assert (wrong_order.codespace, wrong_order.code) == ("sdk", 8)
    too_few, too_many = transaction(messages, good[:1]), transaction(messages, [*good, By(KEYS[5], 0, 5)])
    for raw in (too_few, too_many):
        result = both(driver, raw)
        assert (result.codespace, result.code) == ("sdk", 4)
        assert "wrong number of signers" in result.log
    result = both(driver, transaction(messages, good))
    assert result.code == 0, result.log
    assert both(driver, transaction(messages, [By(KEYS[4], 1, 4), By(KEYS[1], 0, 1)])).code == 32, "the second one's sequence was used up, too"


def test_a_fee_payer_who_is_no_sender_signs_last_and_pays() -> None:
    driver = chain()
    payer = text(KEYS[5])
    message = send_from(KEYS[4].public_key)
    unsigned = both(driver, transaction([message], [By(KEYS[4], 0, 4)], payer=payer))
    assert (unsigned.codespace, unsigned.code) == ("sdk", 4)
    result = both(driver, transaction([message], [By(KEYS[4], 0, 4), By(KEYS[5], 0, 5)], payer=payer))
    assert result.code == 0, result.log
    assert dict(next(pairs for kind, pairs in result.events if kind == "tx"))["fee_payer"] == payer
    spent = [dict(pairs)["spender"] for kind, pairs in result.events if kind == "coin_spent"]
    assert spent == [payer, text(KEYS[4])]


def test_a_sender_signs_direct_aux_where_another_pays_and_the_payer_never_does() -> None:
    """As SDK 0.50 has it: the tip is gone, so the fee payer is the one DIRECT signer among DIRECT_AUX ones."""
    driver = chain()
    payer = text(KEYS[5])
    message = send_from(KEYS[4].public_key)
    good = [By(KEYS[4], 0, 4, DIRECT_AUX), By(KEYS[5], 0, 5, DIRECT)]
    assert both(driver, transaction([message], good, payer=payer)).code == 0
    for who, number, named in ((KEYS[5], 5, payer), (KEYS[4], 4, "")):
        signers = [By(KEYS[4], 1, 4)] if who is KEYS[4] else [By(KEYS[4], 1, 4, DIRECT_AUX), By(KEYS[5], 1, 5)]
        parts = TxRaw.FromString(transaction([message], signers, payer=named))
        info = AuthInfo.FromString(parts.auth_info_bytes)
        info.signer_infos[-1].mode_info.single.mode = DIRECT_AUX
        document = message_class("cosmos.tx.v1beta1.SignDocDirectAux")(
            body_bytes=parts.body_bytes, public_key=public_key_to_any(who.public_key), chain_id=CHAIN_ID, account_number=number, sequence=1
        )
        parts.auth_info_bytes, parts.signatures[-1] = encode(info), who.sign(document.SerializeToString())
        result = both(driver, parts.SerializeToString())
        assert (result.codespace, result.code) == ("sdk", 4), "its own signature, which would let anybody change what it pays"


def test_direct_aux_covers_the_body_and_not_the_fee() -> None:
    driver = chain()
    message = send_from(KEYS[4].public_key)
    raw = transaction([message], [By(KEYS[4], 0, 4, DIRECT_AUX), By(KEYS[5], 0, 5)], payer=text(KEYS[5]))
    parts = TxRaw.FromString(raw)
    body = TxBody.FromString(parts.body_bytes)
    body.memo = "changed"
    changed = TxRaw(body_bytes=encode(body), auth_info_bytes=parts.auth_info_bytes, signatures=parts.signatures)
    assert both(driver, changed.SerializeToString()).code == 4
    cheaper = AuthInfo.FromString(parts.auth_info_bytes)
    cheaper.fee.gas_limit -= 1
    info = encode(cheaper)
    changed = TxRaw(body_bytes=parts.body_bytes, auth_info_bytes=info, signatures=parts.signatures)
    assert both(driver, changed.SerializeToString()).code == 4, "the payer's signature covers it"
    document = message_class("cosmos.tx.v1beta1.SignDoc")(body_bytes=parts.body_bytes, auth_info_bytes=info, chain_id=CHAIN_ID, account_number=5)
    signatures = [parts.signatures[0], KEYS[5].sign(document.SerializeToString())]
    assert both(driver, TxRaw(body_bytes=parts.body_bytes, auth_info_bytes=info, signatures=signatures).SerializeToString()).code == 0


@pytest.mark.parametrize("mode", [UNSPECIFIED, TEXTUAL, 99])
def test_a_mode_the_chain_has_not_is_refused(mode: int) -> None:
    driver = chain()
    raw = transaction([send_from(KEYS[4].public_key)], [By(KEYS[4], 0, 4)])
    parts = TxRaw.FromString(raw)
    info = AuthInfo.FromString(parts.auth_info_bytes)
    info.signer_infos[0].mode_info.single.mode = mode
    result = both(driver, TxRaw(body_bytes=parts.body_bytes, auth_info_bytes=encode(info), signatures=parts.signatures).SerializeToString())
    assert (result.codespace, result.code) == ("sdk", 4)


def test_a_key_that_is_not_the_signers_is_refused_and_a_known_account_needs_none() -> None:
    driver = chain()
    stolen = By(PrivateKey((99).to_bytes(32, "big"), "secp256k1"), 0, 4)
    result = both(driver, transaction([send_from(KEYS[4].public_key)], [stolen]))
    assert (result.codespace, result.code) == ("sdk", 8)
    first = transaction([send_from(KEYS[4].public_key)], [By(KEYS[4], 0, 4)])
    parts = TxRaw.FromString(first)
    info = AuthInfo.FromString(parts.auth_info_bytes)
    info.signer_infos[0].ClearField("public_key")
    keyless = TxRaw(body_bytes=parts.body_bytes, auth_info_bytes=encode(info), signatures=parts.signatures).SerializeToString()
    unknown = both(driver, keyless)
    assert (unknown.codespace, unknown.code) == ("sdk", 8), "the account has not signed yet"
    assert both(driver, first).code == 0
    info.signer_infos[0].sequence = 1
    document = message_class("cosmos.tx.v1beta1.SignDoc")(
        body_bytes=parts.body_bytes, auth_info_bytes=encode(info), chain_id=CHAIN_ID, account_number=4
    )
    signature = KEYS[4].sign(document.SerializeToString())
    known = TxRaw(body_bytes=parts.body_bytes, auth_info_bytes=encode(info), signatures=[signature])
    assert both(driver, known.SerializeToString()).code == 0


def test_an_ed25519_key_signs_no_transaction() -> None:
    import nacl.signing

    class Consensus:
        def __init__(self) -> None:
            from chain.crypto.keys import Ed25519PublicKey

            self._key = nacl.signing.SigningKey(bytes(32))
            self.public_key = Ed25519PublicKey(bytes(self._key.verify_key))

        def sign(self, message: bytes) -> bytes:
            return bytes(self._key.sign(message).signature)

    who = Consensus()
    group = Multisig(1, [who], [0])
    driver = chain()
    pays = [MsgSend(from_address=text(KEYS[2]), to_address=bech32.encode(group.public_key.address), amount=to_messages((Coin("wei", 10**20),)))]
    assert deliver(driver, transaction(pays, [By(KEYS[2], 0, 2)])).code == 0
    result = both(driver, transaction([send_from(group.public_key)], [By(group, 0, 6, AMINO)]))
    assert (result.codespace, result.code) == ("sdk", 8)


def test_amino_json_does_not_cover_unknown_fields_or_extension_options_and_is_refused_with_them() -> None:
    driver = chain()
    raw = transaction([send_from(KEYS[4].public_key)], [By(KEYS[4], 0, 4, AMINO)])
    parts = TxRaw.FromString(raw)
    non_critical = parts.body_bytes + b"\x82\x40\x01x"  # field 1032: bit 11 is set
    extension = TxBody.FromString(parts.body_bytes)
    extension.non_critical_extension_options.add(type_url="/cosmos.bank.v1beta1.MsgSend")
    for body in (non_critical, encode(extension)):
        changed = TxRaw(body_bytes=body, auth_info_bytes=parts.auth_info_bytes, signatures=parts.signatures)
        result = both(driver, changed.SerializeToString())
        assert (result.codespace, result.code) == ("sdk", 4)
    assert both(driver, raw).code == 0
