"""CometBFT's JSON of blocks, validators and results as protobuf messages of ``tendermint.types`` and ``cosmos.base.abci``."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from google.protobuf.message import DecodeError

from chain.codec.registry import message_class, pack_any
from chain.codec.times import parse_rfc3339
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, Secp256k1PublicKey, public_key_to_any

Block: Final = message_class("tendermint.types.Block")
BlockID: Final = message_class("tendermint.types.BlockID")
SdkBlock: Final = message_class("cosmos.base.tendermint.v1beta1.Block")
TxResponse: Final = message_class("cosmos.base.abci.v1beta1.TxResponse")
_Tx: Final = message_class("cosmos.tx.v1beta1.Tx")
_TxRaw: Final = message_class("cosmos.tx.v1beta1.TxRaw")


def block_id(value: Any) -> Any:
    """BlockID from its JSON."""
    message = BlockID(hash=bytes.fromhex(value["hash"]))
    message.part_set_header.total = int(value["parts"]["total"])
    message.part_set_header.hash = bytes.fromhex(value["parts"]["hash"])
    return message


def header(value: Any, message: Any) -> None:
    """Fill a ``tendermint.types.Header`` from its JSON."""
    message.version.block = int(value["version"]["block"])
    message.version.app = int(value["version"].get("app") or 0)
    message.chain_id, message.height = value["chain_id"], int(value["height"])
    _time(message.time, value["time"])
    if value.get("last_block_id", {}).get("hash"):
        message.last_block_id.CopyFrom(block_id(value["last_block_id"]))
    for name in (
        "last_commit_hash",
        "data_hash",
        "validators_hash",
        "next_validators_hash",
        "consensus_hash",
        "app_hash",
        "last_results_hash",
        "evidence_hash",
        "proposer_address",
    ):
        setattr(message, name, bytes.fromhex(value[name]))


def block(value: Any) -> Any:
    """``tendermint.types.Block`` from its JSON."""
    message = Block()
    header(value["header"], message.header)
    message.data.SetInParent()
    message.evidence.SetInParent()
    for one in value["evidence"].get("evidence") or []:
        _evidence(one, message.evidence.evidence.add())
    message.data.txs.extend(base64.b64decode(tx) for tx in value["data"].get("txs") or [])
    if value.get("last_commit"):
        commit(value["last_commit"], message.last_commit)
    return message


def commit(value: Any, message: Any) -> None:
    """Fill a ``tendermint.types.Commit`` from its JSON."""
    message.height, message.round = int(value["height"]), int(value["round"])
    if value["block_id"]["hash"]:
        message.block_id.CopyFrom(block_id(value["block_id"]))
    for one in value.get("signatures") or []:
        part = message.signatures.add(block_id_flag=int(one["block_id_flag"]))
        part.validator_address = bytes.fromhex(one["validator_address"])
        part.signature = base64.b64decode(one["signature"] or "")
        _time(part.timestamp, one["timestamp"])


def _evidence(value: Any, message: Any) -> None:
    """Fill a ``tendermint.types.Evidence``: two conflicting votes, or a light client's conflicting block."""
    inner = value["value"]
    if value["type"] == "tendermint/DuplicateVoteEvidence":
        votes = message.duplicate_vote_evidence
        _vote(inner["vote_a"], votes.vote_a)
        _vote(inner["vote_b"], votes.vote_b)
        votes.total_voting_power, votes.validator_power = int(inner["TotalVotingPower"]), int(inner["ValidatorPower"])
        _time(votes.timestamp, inner["Timestamp"])
        return
    attack = message.light_client_attack_evidence
    shown = inner["ConflictingBlock"]
    header(shown["signed_header"]["header"], attack.conflicting_block.signed_header.header)
    commit(shown["signed_header"]["commit"], attack.conflicting_block.signed_header.commit)
    validators = attack.conflicting_block.validator_set
    for one in shown["validator_set"]["validators"]:
        comet_validator(one, validators.validators.add())
    comet_validator(shown["validator_set"]["proposer"], validators.proposer)
    for one in inner["ByzantineValidators"] or []:
        comet_validator(one, attack.byzantine_validators.add())
    attack.common_height, attack.total_voting_power = int(inner["CommonHeight"]), int(inner["TotalVotingPower"])
    _time(attack.timestamp, inner["Timestamp"])


def _vote(value: Any, message: Any) -> None:
    message.type, message.height, message.round = int(value["type"]), int(value["height"]), int(value["round"])
    message.block_id.CopyFrom(block_id(value["block_id"]))
    _time(message.timestamp, value["timestamp"])
    message.validator_address, message.validator_index = bytes.fromhex(value["validator_address"]), int(value["validator_index"])
    message.signature = base64.b64decode(value["signature"] or "")
    message.extension = base64.b64decode(value.get("extension") or "")
    message.extension_signature = base64.b64decode(value.get("extension_signature") or "")


def comet_validator(value: Any, message: Any) -> None:
    """Fill a ``tendermint.types.Validator`` from its JSON."""
    message.address = bytes.fromhex(value["address"])
    kind = "ed25519" if value["pub_key"]["type"] == "tendermint/PubKeyEd25519" else "secp256k1"
    setattr(message.pub_key, kind, base64.b64decode(value["pub_key"]["value"]))
    message.voting_power, message.proposer_priority = int(value["voting_power"]), int(value.get("proposer_priority") or 0)


def sdk_block(message: Any) -> Any:
    """The SDK's own Block, whose header names the proposer in bech32."""
    result = SdkBlock(data=message.data, evidence=message.evidence, last_commit=message.last_commit)
    for field, value in message.header.ListFields():
        if field.name == "proposer_address":
            result.header.proposer_address = bech32.encode(value, bech32.CONSENSUS)
        elif field.message_type is not None:
            getattr(result.header, field.name).CopyFrom(value)
        else:
            setattr(result.header, field.name, value)
    return result


def validator(value: Any) -> Any:
    """``cosmos.base.tendermint.v1beta1.Validator`` from its JSON."""
    raw = base64.b64decode(value["pub_key"]["value"])
    key = Ed25519PublicKey(raw) if value["pub_key"]["type"] == "tendermint/PubKeyEd25519" else Secp256k1PublicKey(raw)
    return message_class("cosmos.base.tendermint.v1beta1.Validator")(
        address=bech32.encode(bytes.fromhex(value["address"]), bech32.CONSENSUS),
        pub_key=public_key_to_any(key),
        voting_power=int(value["voting_power"]),
        proposer_priority=int(value.get("proposer_priority") or 0),
    )


def tx_of(raw: bytes) -> Any | None:
    """``cosmos.tx.v1beta1.Tx`` from TxRaw bytes; None for bytes that are none, which a block may hold."""
    try:
        parts = _TxRaw.FromString(raw)
        tx = _Tx(signatures=parts.signatures)
        tx.body.ParseFromString(parts.body_bytes)
        tx.auth_info.ParseFromString(parts.auth_info_bytes)
    except DecodeError:
        return None
    return tx


def tx_response(value: Any, timestamp: str) -> Any:
    """TxResponse of a ``tx`` or ``tx_search`` result."""
    result = value["tx_result"]
    raw = base64.b64decode(value["tx"])
    response = TxResponse(
        height=int(value["height"]),
        txhash=value["hash"],
        codespace=result.get("codespace") or "",
        code=int(result.get("code") or 0),
        data=base64.b64decode(result.get("data") or "").hex().upper(),
        raw_log=result.get("log") or "",
        info=result.get("info") or "",
        gas_wanted=int(result.get("gas_wanted") or 0),
        gas_used=int(result.get("gas_used") or 0),
        timestamp=timestamp,
    )
    tx = tx_of(raw)
    if tx is not None:
        response.tx.CopyFrom(pack_any(tx))
    for event in result.get("events") or []:
        added = response.events.add(type=event["type"])
        for pair in event["attributes"]:
            added.attributes.add(key=pair["key"], value=pair.get("value") or "", index=bool(pair.get("index")))
    return response


def broadcast_response(value: Any, raw: bytes) -> Any:
    """TxResponse of a broadcast."""
    return TxResponse(
        txhash=hashlib.sha256(raw).hexdigest().upper(),
        code=int(value.get("code") or 0),
        codespace=value.get("codespace") or "",
        data=(value.get("data") or ""),
        raw_log=value.get("log") or "",
    )


def _time(target: Any, text: str) -> None:
    target.seconds, target.nanos = parse_rfc3339(text)
