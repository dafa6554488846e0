"""``stchaind tx sign``, ``multi-sign``, both for batches, and ``validate-signatures``: transactions that are made in one place and signed in others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from chain.cli.genesis import tx_message
from chain.cli.keyring import keyring_options, setting, user_keyring
from chain.cli.options import UINT64, ignored, output_option, taken_as_simd_takes_them
from chain.cli.tx import Remote, node_option, raw_of
from chain.codec.json import from_json, loads, to_json
from chain.codec.registry import message_class
from chain.coins import Coin, from_messages, normalise, to_messages
from chain.crypto import address as bech32
from chain.crypto.keyring import KeyringError
from chain.crypto.keys import MultisigPublicKey, PrivateKey, PublicKey, public_key_from_any, public_key_to_any
from chain.errors import AppError
from chain.tx.decode import AuthInfo, Tx, TxRaw, decode_tx
from chain.tx.signing import DIRECT, LEGACY_AMINO_JSON, MultiSignature, sign_bytes, signature_holds

_MODES = {"direct": DIRECT, "amino-json": LEGACY_AMINO_JSON}
Descriptors = message_class("cosmos.tx.signing.v1beta1.SignatureDescriptors")
ModeInfo = message_class("cosmos.tx.v1beta1.ModeInfo")


def _account_options(command: Any) -> Any:
    for option in (
        click.option("--chain-id", default=None, help="The chain's id (default: client.toml's, else asked of the node)."),
        click.option("-a", "--account-number", type=UINT64, default=None, help="With --offline."),
        click.option("-s", "--sequence", type=UINT64, default=None, help="With --offline."),
        click.option("--offline", is_flag=True, help="Ask no node."),
        click.option("--signature-only", is_flag=True, help="Print only the signatures."),
        click.option("--output-document", type=click.Path(dir_okay=False), default=None, help="Write here instead of to the screen."),
    ):
        command = option(command)
    return keyring_options(node_option(output_option(command)))


def _signing_options(command: Any) -> Any:
    for option in (
        click.option("--multisig", default="", help="Name or address of the multisig account on whose behalf the key signs."),
        click.option("--sign-mode", type=click.Choice(sorted(_MODES)), default="direct", show_default=True),
        click.option("--from", "sender", required=True, help="Name or address of the key that signs."),
    ):
        command = option(command)
    return command


def _facts(options: dict[str, Any], address: bytes) -> tuple[str, int, int]:
    """(chain id, account number, sequence) from the options or the node."""
    if options["offline"]:
        chain_id = options["chain_id"] or setting("chain-id")
        if options["account_number"] is None or options["sequence"] is None or not chain_id:
            raise click.ClickException("--offline needs --chain-id, --account-number and --sequence")
        return chain_id, options["account_number"], options["sequence"]
    remote = Remote(options["node"])
    number, sequence = remote.account(bech32.encode(address))
    return (
        options["chain_id"] or setting("chain-id") or remote.chain_id(),
        number if options["account_number"] is None else options["account_number"],
        sequence if options["sequence"] is None else options["sequence"],
    )


def _write(values: Sequence[Any], options: dict[str, Any]) -> None:
    """A line of JSON for each."""
    text = "".join(json.dumps(to_json(one), separators=(",", ":"), ensure_ascii=False) + "\n" for one in values)
    if options["output_document"]:
        with open(options["output_document"], "w") as file:
            file.write(text)
    else:
        click.echo(text, nl=False)


def _info(key: PublicKey, mode_info: Any, sequence: int) -> Any:
    info = message_class("cosmos.tx.v1beta1.SignerInfo")(public_key=public_key_to_any(key), sequence=sequence)
    info.mode_info.CopyFrom(mode_info)
    return info


def _with(given: Tx, address: bytes, info: Any, signature: bytes) -> bytes:
    """``given`` with this signer's info and signature; those of others stay, in the order of the signers."""
    found = {one.public_key.address: at for at, one in enumerate(given.signer_infos) if one.public_key is not None}
    infos, signatures = [], []
    for signer in given.signers:
        if signer == address:
            infos.append(info)
            signatures.append(signature)
        elif signer in found and found[signer] < len(given.signatures):
            infos.append(given.auth_info.signer_infos[found[signer]])
            signatures.append(given.signatures[found[signer]])
    auth_info = AuthInfo()
    auth_info.CopyFrom(given.auth_info)
    del auth_info.signer_infos[:]
    auth_info.signer_infos.extend(infos)
    raw: bytes = TxRaw(body_bytes=given.body_bytes, auth_info_bytes=auth_info.SerializeToString(), signatures=signatures).SerializeToString()
    return raw


@click.command()
@taken_as_simd_takes_them
@click.argument("file", type=click.File("rb"))
@_signing_options
@click.option("--overwrite", is_flag=True, help="Drop the signatures of others that the transaction has.")
@_account_options
def sign(file: Any, sender: str, sign_mode: str, multisig: str, overwrite: bool, **options: Any) -> None:
    """Sign a transaction that --generate-only made.

    \b
    stchaind tx sign unsigned.json --from alice > signed.json
    """
    signer = _Member.of(sender, sign_mode, multisig)
    given = decode_tx(raw_of(file.read()))
    signer.require_signer_of(given)
    if overwrite:
        given = _unsigned(given)
    _write([signer.sign(given, *_facts(options, signer.account), signature_only=options["signature_only"])], options)


def _unsigned(given: Tx) -> Tx:
    auth_info = AuthInfo(fee=given.auth_info.fee)
    return decode_tx(TxRaw(body_bytes=given.body_bytes, auth_info_bytes=auth_info.SerializeToString()).SerializeToString())


@click.command("sign-batch")
@taken_as_simd_takes_them
@click.argument("files", nargs=-1, required=True, type=click.File("rb"))
@_signing_options
@click.option("--append", "is_appended", is_flag=True, help="Put all messages into one transaction; fees and gas are added up.")
@click.option("--note", default="", help="Memo, with --append.")
@click.option("--fee-payer", default="", help="Address that pays the fee, with --append.")
@click.option("--fee-granter", default="", help="Address that granted the fee, with --append.")
@_account_options
def sign_batch(files: tuple[Any, ...], sender: str, sign_mode: str, multisig: str, is_appended: bool, **options: Any) -> None:
    """Sign transactions that --generate-only made, one per line; each takes the next sequence.

    \b
    stchaind tx sign-batch batch.json --from alice > signed.json
    stchaind tx sign-batch one.json two.json --from alice --append > signed.json
    """
    signer = _Member.of(sender, sign_mode, multisig)
    batch = [line for file in files for line in _lines(file)]
    batch = [_appended(batch, options)] if is_appended else [raw_of(line) for line in batch]
    transactions = [decode_tx(raw) for raw in batch]
    for one in transactions:
        signer.require_signer_of(one)
    chain_id, number, sequence = _facts(options, signer.account)
    signed = (signer.sign(one, chain_id, number, sequence + at, signature_only=options["signature_only"]) for at, one in enumerate(transactions))
    _write(list(signed), options)


def _lines(file: Any) -> list[bytes]:
    return [line for line in file.read().splitlines() if line.strip()]


def _appended(batch: Sequence[bytes], options: dict[str, Any]) -> bytes:
    """TxRaw of one transaction with the messages of all."""
    whole = message_class("cosmos.tx.v1beta1.Tx")()
    whole.body.memo = options["note"]
    fees, gas = list[Coin](), 0
    for line in batch:
        one = from_json(message_class("cosmos.tx.v1beta1.Tx"), loads(line))
        whole.body.messages.extend(one.body.messages)
        fees.extend(from_messages(one.auth_info.fee.amount))
        gas += one.auth_info.fee.gas_limit
    if gas >= 1 << 64:
        raise click.ClickException(f"the transactions' gas limits add up to {gas}, beyond 64 bits")
    whole.auth_info.fee.gas_limit = gas
    for name in ("payer", "granter"):
        if options[f"fee_{name}"]:
            bech32.decode(options[f"fee_{name}"])
            setattr(whole.auth_info.fee, name, options[f"fee_{name}"])
    whole.auth_info.fee.amount.extend(to_messages(normalise(fees)))
    return raw_of(json.dumps(to_json(whole)).encode())


@dataclass(frozen=True)
class _Member:
    """A key of the keyring that signs for ``account``: its own, or the multisig that it is a member of."""

    private_key: PrivateKey
    account: bytes
    mode: int
    is_for_multisig: bool

    @classmethod
    def of(cls, sender: str, sign_mode: str, multisig: str) -> _Member:
        record = user_keyring().find(sender)
        if record.private_key is None:
            raise click.ClickException(f"{sender} has no private key in this keyring")
        if not multisig:
            return cls(record.private_key, record.address, _MODES[sign_mode], False)
        key = _multisig(multisig)
        if not _has_member(key, record.public_key):
            raise click.ClickException(f"signing key is not a part of multisig key: {sender} is no member of {multisig}, nor of a multisig in it")
        return cls(record.private_key, key.address, LEGACY_AMINO_JSON, True)

    def require_signer_of(self, given: Tx) -> None:
        if self.account not in given.signers:
            wanted = ", ".join(bech32.encode(one) for one in given.signers)
            raise click.ClickException(f"{bech32.encode(self.account)} does not sign this transaction; its signers are {wanted}")

    def sign(self, given: Tx, chain_id: str, number: int, sequence: int, *, signature_only: bool) -> Any:
        """The signed transaction, or the signature alone (for a multisig always)."""
        mode_info, key = _single(self.mode), self.private_key.public_key
        if not self.is_for_multisig:
            given = decode_tx(_with(given, self.account, _info(key, mode_info, sequence), b""))
        document = sign_bytes(given, self.mode, chain_id=chain_id, account_number=number, sequence=sequence, key=key, signer=self.account)
        signature = self.private_key.sign(document)
        if not self.is_for_multisig and not signature_only:
            return tx_message(_with(given, self.account, _info(key, mode_info, sequence), signature))
        made = Descriptors()
        one = made.signatures.add(public_key=public_key_to_any(key), sequence=sequence)
        one.data.single.mode, one.data.single.signature = self.mode, signature
        return made


@click.command("multi-sign")
@taken_as_simd_takes_them
@click.argument("file", type=click.File("rb"))
@click.argument("name")
@click.argument("signature_files", nargs=-1, required=True, type=click.File("rb"))
@click.option("--skip-signature-verification", "is_unchecked", is_flag=True, help="Do not check the members' signatures.")
@_account_options
def multi_sign(file: Any, name: str, signature_files: tuple[Any, ...], is_unchecked: bool, **options: Any) -> None:
    """Put the signatures of members together for a multisig key NAME.

    \b
    stchaind tx sign unsigned.json --from k1 --multisig k1k2k3 > k1sig.json
    stchaind tx multi-sign unsigned.json k1k2k3 k1sig.json k2sig.json > signed.json

    A multisig that is a member of another signs with --signature-only; its members name the other one, whose account it is:

    \b
    stchaind tx sign unsigned.json --from k1 --multisig outer > k1sig.json
    stchaind tx multi-sign unsigned.json inner k1sig.json k2sig.json --signature-only > innersig.json
    stchaind tx multi-sign unsigned.json outer innersig.json k4sig.json > signed.json
    """
    key = _multisig(name)
    given = decode_tx(raw_of(file.read()))
    facts = _facts(options, _account_of(key, name, [given], options))
    parts = [(source.name, one) for source in signature_files for one in _signatures(source.name, source.read())]
    made = _joined(given, name, key, parts, *facts, is_checked=not is_unchecked)
    _write([made if options["signature_only"] else _signed_by(given, key, made)], options)


@click.command("multisign-batch")
@taken_as_simd_takes_them
@click.argument("file", type=click.File("rb"))
@click.argument("name")
@click.argument("signature_files", nargs=-1, required=True, type=click.File("rb"))
@click.option("--no-auto-increment", is_flag=True, help="Every transaction has the same sequence.")
@ignored("--multisig")
@_account_options
def multi_sign_batch(file: Any, name: str, signature_files: tuple[Any, ...], no_auto_increment: bool, **options: Any) -> None:
    """Put the signatures of members together for a multisig key NAME: line by line of transactions and of each member's file.

    \b
    stchaind tx sign-batch batch.json --from k1 --multisig k1k2k3 > k1sigs.json
    stchaind tx multisign-batch batch.json k1k2k3 k1sigs.json k2sigs.json > signed.json
    """
    key = _multisig(name)
    transactions = [decode_tx(raw_of(line)) for line in _lines(file)]
    chain_id, number, sequence = _facts(options, _account_of(key, name, transactions, options))
    columns = []
    for source in signature_files:
        column = [one for line in _lines(source) for one in _signatures(source.name, line)]
        if len(column) != len(transactions):
            raise click.ClickException(f"{source.name} holds {len(column)} signatures, {file.name} {len(transactions)} transactions")
        columns.append((source.name, column))
    joined = []
    for at, given in enumerate(transactions):
        parts = [(where, column[at]) for where, column in columns]
        made = _joined(given, name, key, parts, chain_id, number, sequence if no_auto_increment else sequence + at)
        joined.append(made if options["signature_only"] else _signed_by(given, key, made))
    _write(joined, options)


def _multisig(name: str) -> MultisigPublicKey:
    key = user_keyring().find(name).public_key
    if not isinstance(key, MultisigPublicKey):
        raise click.ClickException(f"{name} is not a multisig key")
    return key


def _has_member(key: MultisigPublicKey, wanted: PublicKey) -> bool:
    """True if ``wanted`` is a member of ``key``, or of a multisig that is one."""
    return any(one == wanted or (isinstance(one, MultisigPublicKey) and _has_member(one, wanted)) for one in key.members)


def _account_of(key: MultisigPublicKey, name: str, transactions: Sequence[Tx], options: dict[str, Any]) -> bytes:
    """The account whose number and sequence the members of ``key`` sign: its own, or that of the multisig of which it is a part."""
    signers = [one for one in transactions[0].signers if all(one in given.signers for given in transactions)] if transactions else []
    if key.address in signers or not transactions or (options["offline"] and options["signature_only"]):
        return key.address
    if not options["signature_only"]:
        wanted = ", ".join(map(bech32.encode, transactions[0].signers))
        raise click.ClickException(
            f"{name} does not sign this transaction, its signers are {wanted}: use --signature-only to sign as a member of one"
        )
    for signer in signers:
        with contextlib.suppress(KeyringError):
            outer = user_keyring().key_by_address(signer).public_key
            if isinstance(outer, MultisigPublicKey) and _has_member(outer, key):
                return signer
    raise click.ClickException(
        f"{name} signs this transaction neither itself nor as a member of a multisig of this keyring: add that with `keys add`"
    )


def _signatures(where: str, text: bytes) -> list[Any]:
    """The signatures in a file that --signature-only or --multisig made. Raises ClickException."""
    try:
        return list(from_json(Descriptors, loads(text)).signatures)
    except AppError as error:
        raise click.ClickException(
            f"{where} holds no signatures as `tx sign --multisig` and `tx multi-sign --signature-only` print them: {error.detail}"
        ) from None


def _joined(
    given: Tx,
    name: str,
    key: MultisigPublicKey,
    parts: Sequence[tuple[str, Any]],
    chain_id: str,
    number: int,
    sequence: int,
    *,
    is_checked: bool = True,
) -> Any:
    """The signature of ``key``, from (file, SignatureDescriptor) of its members. Raises ClickException."""
    found: dict[int, Any] = {}
    for where, one in parts:
        member = public_key_from_any(one.public_key)
        if member not in key.members:
            raise click.ClickException(f"{where}: {bech32.encode(member.address)} is no member of {name}")
        document = sign_bytes(given, LEGACY_AMINO_JSON, chain_id=chain_id, account_number=number, sequence=sequence, key=member, signer=key.address)
        if is_checked and not _holds(member, one.data, document):
            raise click.ClickException(
                f"{where}: the signature does not hold: expected amino-json over chain id {chain_id}, account number {number}, sequence {sequence}"
            )
        found[key.members.index(member)] = one.data
    if len(found) < key.threshold:
        raise click.ClickException(f"{name} needs {key.threshold} signatures, got {len(found)}")
    made = Descriptors()
    made.signatures.add(public_key=public_key_to_any(key), sequence=sequence)
    multi = made.signatures[0].data.multi
    elems = bytearray(-(-len(key.members) // 8))
    for at in sorted(found):
        elems[at >> 3] |= 0x80 >> at % 8
        multi.signatures.append(found[at])
    multi.bitarray.extra_bits_stored, multi.bitarray.elems = len(key.members) % 8, bytes(elems)
    return made


def _signed_by(given: Tx, key: MultisigPublicKey, made: Any) -> Any:
    """The transaction with the signature of ``key`` that ``_joined`` made."""
    [one] = made.signatures
    mode_info, signature = _as_transactions_have_it(one.data)
    return tx_message(_with(given, key.address, _info(key, mode_info, one.sequence), signature))


def _as_transactions_have_it(data: Any) -> tuple[Any, bytes]:
    """(ModeInfo, signature) of a signature as it is in files."""
    if data.WhichOneof("sum") != "multi":
        return _single(data.single.mode), data.single.signature
    parts = [_as_transactions_have_it(one) for one in data.multi.signatures]
    mode_info = ModeInfo()
    mode_info.multi.bitarray.CopyFrom(data.multi.bitarray)
    mode_info.multi.mode_infos.extend(mode for mode, _ in parts)
    return mode_info, MultiSignature(signatures=[signature for _, signature in parts]).SerializeToString()


@click.command("validate-signatures")
@taken_as_simd_takes_them
@click.argument("file", type=click.File("rb"))
@_account_options
def validate_signatures(file: Any, **options: Any) -> None:
    """Check who signs a transaction and whether the signatures hold; exit code 1 if one does not."""
    given = decode_tx(raw_of(file.read()))
    click.echo("Signers:")
    for at, signer in enumerate(given.signers):
        click.echo(f"  {at}: {bech32.encode(signer)}")
    click.echo("\nSignatures:")
    good = len(given.signatures) == len(given.signers) == len(given.signer_infos)
    for at, (signer, info, _) in enumerate(zip(given.signers, given.signer_infos, given.signatures, strict=False)):
        key = info.public_key
        verdict = "OK"
        if key is None or key.address != signer:
            verdict = "the key is not the signer's"
        else:
            chain_id, number, _ = _facts(options, signer)

            if not _signed(given, at, key, chain_id, number):
                verdict = "does not hold"
        good = good and verdict == "OK"
        click.echo(f"  {at}: {bech32.encode(signer)}\t\t\t[{verdict}]")
    click.echo("")
    if not good:
        raise click.ClickException("signatures validation failed")


def _holds(key: PublicKey, data: Any, document: bytes) -> bool:
    mode_info, signature = _as_transactions_have_it(data)
    return _is_amino(mode_info) and signature_holds(key, mode_info, signature, lambda _: document)


def _is_amino(mode_info: Any) -> bool:
    """True if it is the mode of every part: no other mode's document stays the same when the signatures come into the transaction."""
    if mode_info.WhichOneof("sum") == "multi":
        return all(_is_amino(one) for one in mode_info.multi.mode_infos)
    return bool(mode_info.single.mode == LEGACY_AMINO_JSON)


def _signed(given: Tx, at: int, key: PublicKey, chain_id: str, number: int) -> bool:
    info, signer = given.signer_infos[at], given.signers[at]

    def document(mode: int) -> bytes:
        return sign_bytes(given, mode, chain_id=chain_id, account_number=number, sequence=info.sequence, key=key, signer=signer)

    try:
        return signature_holds(key, info.mode, given.signatures[at], document)
    except AppError:
        return False


def _single(mode: int) -> Any:
    info = ModeInfo()
    info.single.mode = mode
    return info


COMMANDS: Final = {
    "sign": sign,
    "sign-batch": sign_batch,
    "multi-sign": multi_sign,
    "multisign": multi_sign,
    "multi-sign-batch": multi_sign_batch,
    "multisign-batch": multi_sign_batch,
    "validate-signatures": validate_signatures,
}
"""What `tx` gets of this module."""
