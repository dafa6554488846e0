"""The wire format of Stratos' own modules: field numbers, names and types of the original as its clients know them, and every message both ways.

The tables are typed from the original's published format, not from ``proto/``. A field is ``number name type``; no type means text, ``?`` may be
absent (all other Ints, Decs, times and messages are always written), ``*`` is a list. Numbers from 101 on are ours.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chain.app import build_application
from chain.codec import amino_json
from chain.codec.canonical import encode, is_non_nullable
from chain.codec.json import dumps, from_json, is_dec, is_int, loads, to_json
from chain.codec.registry import POOL, extension, file_descriptors, message_class, option_of
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, keccak256, public_key_to_any
from chain.store.kv import MemoryBackend
from chain.tx.decode import message_signers_of

_NODE: Final = "1 network_address, 2 pubkey Any?, 3 suspend bool, 4 status BondStatus"
_DEPOSIT: Final = "1 network_address, 2 owner_address, 3 deposit_delta Coin"
_VOTES: Final = "2 approve_list *, 3 reject_list *, 4 expire_time time, 5 is_vote_passed bool"
_DEPOSIT_EVENT: Final = (
    "1 sender, 2 network_address, 3 deposit_delta, 4 current_deposit, 5 available_token_before, 6 available_token_after, "
    "7 ozone_limit_changes, 8 unbonding_mature_time"
)
_PAGE: Final = "pagination PageResponse?"

FIELDS: Final[dict[str, dict[str, str]]] = {
    "stratos.types.v1": {
        "Int": "1 Value Int?",
        "Dec": "1 Value Dec?",
        "Coins": "1 Value Coin*",
        "SdsAddresses": "1 Addresses *",
    },
    "stratos.register.v1": {
        "MsgCreateResourceNode": "1 network_address, 2 pubkey Any?, 3 value Coin, 4 owner_address, 5 beneficiary_address, "
        "6 description Description, 7 node_type u32",
        "MsgCreateMetaNode": "1 network_address, 2 pubkey Any?, 3 value Coin, 4 owner_address, 5 beneficiary_address, 6 description Description",
        "MsgRemoveResourceNode": "1 resource_node_address, 2 owner_address",
        "MsgRemoveMetaNode": "1 meta_node_address, 2 owner_address",
        "MsgUpdateResourceNode": "1 description Description, 2 beneficiary_address, 3 network_address, 4 owner_address, 5 node_type u32",
        "MsgUpdateMetaNode": "1 description Description, 2 beneficiary_address, 3 network_address, 4 owner_address",
        "MsgUpdateResourceNodeDeposit": _DEPOSIT,
        "MsgUpdateMetaNodeDeposit": _DEPOSIT,
        "MsgUpdateEffectiveDeposit": "1 reporters *, 2 reporter_owner *, 3 network_address, 4 effective_tokens Int",
        "MsgMetaNodeRegistrationVote": "1 candidate_network_address, 2 candidate_owner_address, 3 opinion bool, 4 voter_network_address, "
        "5 voter_owner_address",
        "MsgKickMetaNodeVote": "1 target_network_address, 2 opinion bool, 3 voter_network_address, 4 voter_owner_address",
        "MsgUpdateParams": "1 authority, 2 params Params",
        "Description": "1 moniker, 2 identity, 3 website, 4 security_contact, 5 details",
        "ResourceNode": f"{_NODE}, 5 tokens Int, 6 owner_address, 7 description Description, 8 creation_time time, 9 node_type u32, "
        "10 effective_tokens Int, 11 beneficiary_address",
        "MetaNode": f"{_NODE}, 5 tokens Int, 6 owner_address, 7 description Description, 8 creation_time time, 9 beneficiary_address",
        "MetaNodeRegistrationVotePool": f"1 network_address, {_VOTES}",
        "KickMetaNodeVotePool": f"1 target_network_address, {_VOTES}",
        "UnbondingNode": "1 network_addr, 2 is_meta_node bool, 3 entries UnbondingNodeEntry*",
        "UnbondingNodeEntry": "1 creation_height i64, 2 completion_time time, 3 initial_balance Int?, 4 balance Int?",
        "Slashing": "1 wallet_address, 2 value i64, 101 value_wei Int?",
        "Params": "1 bond_denom, 2 unbonding_threashold_time duration, 3 unbonding_completion_time duration, 4 max_entries u32, "
        "5 resource_node_reg_enabled bool, 6 resource_node_min_deposit Coin, 7 voting_period duration, 101 solvency_rules bool",
        "GenesisState": "1 params Params, 2 resource_nodes ResourceNode*, 3 meta_nodes MetaNode*, 4 remaining_noz_limit Int, 5 slashing Slashing*, "
        "6 deposit_noz_rate Dec, 7 meta_node_reg_vote_pool MetaNodeRegistrationVotePool*, 8 unbonding_nodes UnbondingNode*, "
        "9 kick_meta_node_vote_pool KickMetaNodeVotePool*, 101 pending_lower_wei Int, 102 pending_lower_noz Int, "
        "103 leaving_deposits LeavingDeposit*, 104 effective_deposit_approvals EffectiveDepositApprovals*",
        "GenesisMetaNode": f"{_NODE}, 5 tokens Coin, 6 owner_address, 7 beneficiary_address, 8 description Description",
        "DepositInfo": f"{_NODE}, 5 tokens Int, 6 owner_address, 7 description Description, 8 creation_time time, 9 node_type u32, "
        "10 bonded_deposit Coin, 11 un_bonding_deposit Coin, 12 un_bonded_deposit Coin",
        "QueryResourceNodeRequest": "1 network_addr",
        "QueryResourceNodeResponse": "1 node ResourceNode?",
        "QueryMetaNodeRequest": "1 network_addr",
        "QueryMetaNodeResponse": "1 node MetaNode?",
        "QueryParamsRequest": "",
        "QueryParamsResponse": "1 params Params?",
        "QueryDepositByNodeRequest": "1 network_addr, 2 query_type u32",
        "QueryDepositByNodeResponse": "1 deposit_info DepositInfo?",
        "QueryDepositByOwnerRequest": "1 owner_addr, 2 pagination PageRequest?",
        "QueryDepositByOwnerResponse": f"1 deposit_infos DepositInfo*, 2 {_PAGE}",
        "QueryDepositTotalRequest": "",
        "QueryDepositTotalResponse": "1 resource_nodes_total_deposit Coin?, 2 meta_nodes_total_deposit Coin?, 3 total_bonded_deposit Coin?, "
        "4 total_unbonded_deposit Coin?, 5 total_unbonding_deposit Coin?",
        "QueryBondedResourceNodeCountRequest": "",
        "QueryBondedResourceNodeCountResponse": "1 number u64",
        "QueryBondedMetaNodeCountRequest": "",
        "QueryBondedMetaNodeCountResponse": "1 number u64",
        "QueryRemainingOzoneLimitRequest": "",
        "QueryRemainingOzoneLimitResponse": "1 ozone_limit Int",
        "EventCreateResourceNode": "1 sender, 2 network_address, 3 pubkey, 4 ozone_limit_changes, 5 initial_deposit",
        "EventCreateMetaNode": "1 sender, 2 network_address",
        "EventUnBondingResourceNode": "1 sender, 2 resource_node, 3 deposit_to_remove, 4 unbonding_mature_time",
        "EventUnBondingMetaNode": "1 sender, 2 meta_node, 3 ozone_limit_changes, 4 deposit_to_remove, 5 unbonding_mature_time",
        "EventMetaNodeRegistrationVote": "1 sender, 2 voter_network_address, 3 candidate_network_address, 4 candidate_status, 5 ozone_limit_changes",
        "EventKickMetaNodeVote": "1 sender, 2 voter_network_address, 3 target_network_address, 4 target_status",
        "EventUpdateResourceNode": "1 sender, 2 network_address, 3 beneficiary_address",
        "EventUpdateMetaNode": "1 sender, 2 network_address",
        "EventUpdateResourceNodeDeposit": _DEPOSIT_EVENT,
        "EventUpdateMetaNodeDeposit": _DEPOSIT_EVENT,
        "EventUpdateEffectiveDeposit": "1 network_address, 2 effective_deposit_after, 3 is_unsuspended",
        "EventCompleteUnBondingResourceNode": "1 amount, 2 network_address",
        "EventCompleteUnBondingMetaNode": "1 amount, 2 network_address",
    },
    "stratos.sds.v1": {
        "MsgFileUpload": "1 file_hash, 2 from, 3 reporter, 4 uploader",
        "MsgPrepay": "1 sender, 2 beneficiary, 3 amount Coin*",
        "MsgUpdateParams": "1 authority, 2 params Params",
        "Params": "1 bond_denom",
        "FileInfo": "1 height Int, 2 reporters bytes, 3 uploader",
        "GenesisState": "1 params Params, 2 files GenesisFileInfo*",
        "GenesisFileInfo": "1 file_hash, 2 file_info FileInfo",
        "QueryFileUploadRequest": "1 file_hash",
        "QueryFileUploadResponse": "1 file_info FileInfo?",
        "QuerySimPrepayRequest": "1 amount",
        "QuerySimPrepayResponse": "1 noz Int",
        "QueryNozPriceRequest": "",
        "QueryNozPriceResponse": "1 price Dec",
        "QueryNozSupplyRequest": "",
        "QueryNozSupplyResponse": "1 remaining Int, 2 total Int",
        "QueryParamsRequest": "",
        "QueryParamsResponse": "1 params Params?",
        "EventPrePay": "1 sender, 2 beneficiary, 3 amount, 4 purchased_noz",
        "EventFileUpload": "1 sender, 2 reporter, 3 uploader, 4 file_hash",
    },
    "stratos.pot.v1": {
        "MsgVolumeReport": "1 wallet_volumes SingleWalletVolume*, 2 reporter, 3 epoch Int, 4 report_reference, 5 reporter_owner, "
        "6 BLS_signature BLSSignatureInfo",
        "BLSSignatureInfo": "1 pub_keys bytes*, 2 signature bytes, 3 txData bytes",
        "SingleWalletVolume": "1 wallet_address, 2 volume Int",
        "WalletVolumes": "1 volumes SingleWalletVolume*",
        "MsgWithdraw": "1 amount Coin*, 2 wallet_address, 3 target_address",
        "MsgFoundationDeposit": "1 amount Coin*, 2 from",
        "MsgSlashingResourceNode": "1 reporters *, 2 reporter_owner *, 3 network_address, 4 wallet_address, 5 slashing Int, 6 suspend bool",
        "MsgUpdateParams": "1 authority, 2 params Params",
        "Params": "1 bond_denom, 2 reward_denom, 3 mature_epoch i64, 4 mining_reward_params MiningRewardParam*, 5 community_tax Dec, "
        "6 initial_total_supply Coin, 101 epoch_duration_s u64, 102 mining_cap_ratio Dec, 103 max_wallets_per_report u32",
        "MiningRewardParam": "1 total_mined_valve_start Coin, 2 total_mined_valve_end Coin, 3 mining_reward Coin, 4 block_chain_percentage_in_bp Int, "
        "5 resource_node_percentage_in_bp Int, 6 meta_node_percentage_in_bp Int",
        "Reward": "1 wallet_address, 2 reward_from_mining_pool Coin*, 3 reward_from_traffic_pool Coin*",
        "VolumeReportRecord": "1 reporter, 2 report_reference, 3 tx_hash",
        "TotalReward": "1 mining_reward Coin*, 2 traffic_reward Coin*",
        "Metrics": "1 total_supply Int, 2 total_mining_supply Int, 3 total_mined_tokens Int, 4 total_resource_nodes_deposit Int, "
        "5 total_bonded_delegation Int, 6 total_unbonded_delegation Int, 7 total_unbonding_delegation Int, 8 circulation_supply Int, "
        "9 total_mining_reward Int, 10 chain_mining_reward Int, 11 resource_mining_reward Int, 12 meta_mining_reward Int, "
        "13 resource_node_deposit Int, 14 meta_node_deposit Int, 15 unissued_prepay Int",
        "GenesisState": "1 params Params, 2 total_mined_token Coin, 3 last_distributed_epoch Int, 4 immature_total_info ImmatureTotal*, "
        "5 mature_total_info MatureTotal*, 6 individual_reward_info Reward*, 7 matured_epoch Int, 8 reward_total_info RewardTotal*, "
        "101 maturing_rewards MaturingReward*, 102 reports EpochReport*, 103 last_report_time time?, 104 epoch_economics EpochEconomics*, "
        "105 slashing_approvals SlashingApprovals*",
        "ImmatureTotal": "1 wallet_address, 2 value Coin*",
        "MatureTotal": "1 wallet_address, 2 value Coin*",
        "RewardTotal": "1 epoch Int, 2 total_reward TotalReward",
        "ReportInfo": "1 epoch i64, 2 reference, 3 tx_hash, 4 reporter",
        "RewardByWallet": "1 wallet_address, 2 mature_total_reward Coin*, 3 immature_total_reward Coin*",
        "QueryVolumeReportRequest": "1 epoch i64",
        "QueryVolumeReportResponse": "1 report_info ReportInfo?",
        "QueryRewardsByEpochRequest": "1 epoch i64, 2 pagination PageRequest?",
        "QueryRewardsByEpochResponse": f"1 rewards Reward*, 2 {_PAGE}",
        "QueryRewardsByWalletRequest": "1 wallet_address",
        "QueryRewardsByWalletResponse": "1 rewards RewardByWallet?",
        "QueryRewardsByWalletAndEpochRequest": "1 wallet_address, 2 epoch i64, 3 pagination PageRequest?",
        "QueryRewardsByWalletAndEpochResponse": f"1 rewards Reward*, 2 {_PAGE}",
        "QuerySlashingByOwnerRequest": "1 wallet_address",
        "QuerySlashingByOwnerResponse": "1 slashing",
        "QueryParamsRequest": "",
        "QueryParamsResponse": "1 params Params?",
        "QueryTotalMinedTokenRequest": "",
        "QueryTotalMinedTokenResponse": "1 total_mined_token Coin",
        "QueryCirculationSupplyRequest": "",
        "QueryCirculationSupplyResponse": "3 circulation_supply Coin*",
        "QueryTotalRewardByEpochRequest": "1 epoch i64",
        "QueryTotalRewardByEpochResponse": "1 total_reward TotalReward, 2 is_legacy bool",
        "QueryMetricsRequest": "",
        "QueryMetricsResponse": "1 metrics Metrics",
        "EventVolumeReport": "1 report_reference, 2 epoch",
        "EventWithdraw": "1 amount, 2 wallet_address, 3 target_address",
        "EventFoundationDeposit": "1 amount",
        "EventSlashing": "1 wallet_address, 2 network_address, 3 amount, 4 slashing_type, 5 suspend",
    },
}
MESSAGES: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "stratos.register.v1": {
        "CreateResourceNode": ("owner_address", "register/CreateResourceNodeTx"),
        "CreateMetaNode": ("owner_address", "register/CreateMetaNodeTx"),
        "RemoveResourceNode": ("owner_address", "register/RemoveResourceNodeTx"),
        "RemoveMetaNode": ("owner_address", "register/RemoveMetaNodeTx"),
        "UpdateResourceNode": ("owner_address", "register/UpdateResourceNodeTx"),
        "UpdateMetaNode": ("owner_address", "register/UpdateMetaNodeTx"),
        "UpdateResourceNodeDeposit": ("owner_address", "register/UpdateResourceNodeDepositTx"),
        "UpdateMetaNodeDeposit": ("owner_address", "register/UpdateMetaNodeDepositTx"),
        "UpdateEffectiveDeposit": ("reporter_owner", "stratos/MsgUpdateEffectiveDeposit"),
        "MetaNodeRegistrationVote": ("voter_owner_address", "register/MsgMetaNodeRegistrationVote"),
        "KickMetaNodeVote": ("voter_owner_address", "stratos/MsgKickMetaNodeVote"),
        "UpdateParams": ("authority", "register/UpdateParamsTx"),
    },
    "stratos.sds.v1": {
        "FileUpload": ("from", "sds/FileUploadTx"),
        "Prepay": ("sender", "sds/PrepayTx"),
        "UpdateParams": ("authority", "sds/UpdateParamsTx"),
    },
    "stratos.pot.v1": {
        "VolumeReport": ("reporter_owner", "pot/VolumeReportTx"),
        "Withdraw": ("wallet_address", "pot/WithdrawTx"),
        "FoundationDeposit": ("from", "pot/FoundationDepositTx"),
        "SlashingResourceNode": ("reporter_owner", "pot/SlashingResourceNodeTx"),
        "UpdateParams": ("authority", "pot/UpdateParamsTx"),
    },
}
"""Without ``Msg``: who signs, and the name in LEGACY_AMINO_JSON."""
ROUTES: Final[dict[str, dict[str, str]]] = {
    "/stratos/register/v1": {
        "ResourceNode": "/resource_node/{network_addr}",
        "MetaNode": "/meta_node/{network_addr}",
        "Params": "/params",
        "DepositByNode": "/deposit_by_node/{network_addr}/{query_type}",
        "DepositByOwner": "/deposit_by_owner/{owner_addr}",
        "DepositTotal": "/deposit_total",
        "BondedResourceNodeCount": "/resource_node_count",
        "BondedMetaNodeCount": "/meta_node_count",
        "RemainingOzoneLimit": "/remaining_ozone_limit",
    },
    "/stratos/sds/v1": {
        "Fileupload": "/file_upload/{file_hash}",
        "SimPrepay": "/sim_prepay/{amount}",
        "NozPrice": "/noz_price",
        "NozSupply": "/noz_supply",
        "Params": "/params",
    },
    "/stratos/pot/v1": {
        "VolumeReport": "/volume_report/{epoch}",
        "RewardsByEpoch": "/rewards/epoch/{epoch}",
        "RewardsByWallet": "/rewards/wallet/{wallet_address}",
        "RewardsByWalletAndEpoch": "/rewards/wallet/{wallet_address}/epoch/{epoch}",
        "SlashingByOwner": "/slashing/{wallet_address}",
        "Params": "/params",
        "TotalMinedToken": "/total_mined_token",
        "CirculationSupply": "/circulation_supply",
        "TotalRewardByEpoch": "/total_reward/{epoch}",
        "Metrics": "/metrics",
    },
}

_SIGNER: Final = extension("cosmos.msg.v1.signer")
_AMINO_NAME: Final = extension("amino.name")
_SCALAR: Final = extension("cosmos_proto.scalar")
_HTTP: Final = extension("google.api.http")
_KINDS: Final = {
    FieldDescriptor.TYPE_STRING: "",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT64: "i64",
    FieldDescriptor.TYPE_UINT32: "u32",
    FieldDescriptor.TYPE_UINT64: "u64",
}


def shown(field: FieldDescriptor) -> str:
    """A field in the tables' form."""
    typed = field.message_type or field.enum_type
    kind = {"Timestamp": "time", "Duration": "duration"}.get(typed.name, typed.name) if typed is not None else _KINDS[field.type]
    kind = "Int" if is_int(field) else "Dec" if is_dec(field) else kind
    may_miss = (field.message_type is not None or kind in ("Int", "Dec")) and not is_non_nullable(field)
    mark = "*" if field.is_repeated else "?" if may_miss else ""
    return f"{field.number} {field.name} {kind}{mark}".strip()


def _ours(package: str) -> bool:
    return package.startswith("stratos.") and not package.startswith("stratos.crypto.")


def own_messages() -> list[Descriptor]:
    return [one for file in file_descriptors() if _ours(file.package) for one in file.message_types_by_name.values()]


@pytest.mark.parametrize(("name", "fields"), [(f"{package}.{name}", fields) for package, rows in FIELDS.items() for name, fields in rows.items()])
def test_fields_are_the_originals(name: str, fields: str) -> None:
    descriptor = POOL.FindMessageTypeByName(name)
    assert ", ".join(shown(field) for field in sorted(descriptor.fields, key=lambda field: field.number)) == fields
    assert all(field.number < 1 << 10 for field in descriptor.fields), "bit 11 would make a field one that old clients may overlook"


@pytest.mark.parametrize("package", MESSAGES)
def test_messages_have_the_originals_signers_amino_names_and_methods(package: str) -> None:
    methods = POOL.FindServiceByName(f"{package}.Msg").methods
    found = {}
    for method in methods:
        name = method.input_type.name.removeprefix("Msg")
        assert method.name == ("UpdateParams" if name == "UpdateParams" else f"HandleMsg{name}")
        assert (method.output_type.full_name, len(method.output_type.fields)) == (f"{package}.Msg{name}Response", 0)
        (signer,) = option_of(method.input_type, _SIGNER)
        found[name] = (signer, option_of(method.input_type, _AMINO_NAME))
    assert found == MESSAGES[package]


@pytest.mark.parametrize("prefix", ROUTES)
def test_queries_have_the_originals_methods_and_routes(prefix: str) -> None:
    package = prefix.strip("/").replace("/", ".")
    methods = POOL.FindServiceByName(f"{package}.Query").methods_by_name
    for name, route in ROUTES[prefix].items():
        asked = "FileUpload" if name == "Fileupload" else name
        method = methods[name]
        assert (method.input_type.name, method.output_type.name) == (f"Query{asked}Request", f"Query{asked}Response")
        assert option_of(method, _HTTP).get == prefix + route


def test_routes_and_amino_names_are_told_apart() -> None:
    routes = [
        option_of(method, _HTTP).get
        for file in file_descriptors()
        if _ours(file.package)
        for service in file.services_by_name.values()
        for method in service.methods
        if service.name == "Query"
    ]
    assert len(set(routes)) == len(routes) >= sum(map(len, ROUTES.values()))
    assert all(route.startswith(f"/{'/'.join(route.split('/')[1:4])}/") and route.split("/")[1] == "stratos" for route in routes)
    names = [name for one in own_messages() if (name := option_of(one, _AMINO_NAME))]
    assert len(set(names)) == len(names)


def test_amounts_of_our_own_modules_have_their_unit_in_their_name() -> None:
    amounts = [field for one in own_messages() for field in one.fields if is_int(field) or is_dec(field)]
    ours = [field for field in amounts if field.containing_type.file.package in ("stratos.settlement.v1", "stratos.grant.v1") or field.number > 100]
    assert len(ours) > 30
    assert [field.full_name for field in ours if not {"wei", "noz", "ratio"} & set(field.name.split("_"))] == []


REPORT: Final = {
    "wallet_volumes": [
        {"wallet_address": "st1cxmws9w5ej8847q5ycfskhetrccnhruf56rgc0", "volume": "50000"},
        {"wallet_address": "st19204mtgwql49vyex00ah7e5gg9znedf7w5z68g", "volume": "30000"},
        {"wallet_address": "st1zy9qal508nvc9h0xqmyz500mkuxhteu7elus52", "volume": "20000"},
    ],
    "reporter": "stsds1793jm44fj9tw0c9c8gxwymc6dtnefw0u9p22wk",
    "epoch": "1",
    "report_reference": "report for epoch 1",
    "reporter_owner": "st13z9efm0lwgz03xx5wm3hhv5jjcc3vsc45xwgpd",
}
REPORT_SIGN_BYTES: Final = bytes.fromhex(
    "0a320a2973743163786d7773397735656a383834377135796366736b6865747263636e68727566353672676330120535303030300a320a297374313932"
    "30346d746777716c343976796578303061683765356767397a6e6564663777357a363867120533303030300a320a297374317a793971616c3530386e76"
    "6339683078716d797a3530306d6b75786874657537656c7573353212053230303030122c7374736473313739336a6d3434666a3974773063396338677877"
    "796d633664746e656677307539703232776b1a013122127265706f727420666f722065706f636820312a29737431337a3965666d306c77677a3033787835"
    "776d33686876356a6a636333767363343578776770643200"
)


def test_a_reports_sign_bytes_are_the_published_ones() -> None:
    report = message_class("stratos.pot.v1.MsgVolumeReport")(**REPORT)
    assert encode(report) == REPORT_SIGN_BYTES
    assert keccak256(REPORT_SIGN_BYTES).hex() == "1f2a4e31306cb67d54fd167b390b045e4510a68739f15862fc81f0224891db78"


def test_odd_names_are_the_originals_in_json_and_in_what_is_signed() -> None:
    report = message_class("stratos.pot.v1.MsgVolumeReport")(**REPORT, BLS_signature={"pub_keys": [b"\1"], "signature": b"\2", "txData": b"\3"})
    assert to_json(report)["BLS_signature"] == {"pub_keys": ["AQ=="], "signature": "Ag==", "txData": "Aw=="}
    assert amino_json.message_json(report) == {
        "type": "pot/VolumeReportTx",
        "value": {**REPORT, "bls_signature": {"pub_keys": ["AQ=="], "signature": "Ag==", "tx_data": "Aw=="}},
    }
    entry = message_class("stratos.register.v1.UnbondingNodeEntry")(creation_height=5, completion_time={"seconds": 60}, balance="7")
    assert "completion_time" in to_json(entry)
    assert to_json(entry)["initial_balance"] is None
    assert amino_json.message_json(entry)["value"] == {"creation_height": "5", "creation_time": "1970-01-01T00:01:00Z", "balance": "7"}


def test_what_is_empty_is_signed_as_the_originals_structs_have_it() -> None:
    key = public_key_to_any(Ed25519PublicKey(bytes(32)))
    create = message_class("stratos.register.v1.MsgCreateResourceNode")(pubkey=key, value={"denom": "wei", "amount": "5"})
    assert amino_json.message_json(create) == {
        "type": "register/CreateResourceNodeTx",
        "value": {
            "network_address": "",
            "pubkey": {"type": "tendermint/PubKeyEd25519", "value": "A" * 43 + "="},
            "value": {"denom": "wei", "amount": "5"},
            "owner_address": "",
            "beneficiary_address": "",
            "description": {"moniker": "", "identity": "", "website": "", "security_contact": "", "details": ""},
            "node_type": 0,
        },
    }
    assert amino_json.message_json(message_class("stratos.sds.v1.MsgPrepay")())["value"] == {"sender": "", "beneficiary": "", "amount": []}
    # A client of the original knows nothing of our parameters: while they are zero, what is signed has none of them.
    params = amino_json.message_json(message_class("stratos.pot.v1.MsgUpdateParams")())["value"]["params"]
    assert sorted(params) == ["bond_denom", "community_tax", "initial_total_supply", "mature_epoch", "mining_reward_params", "reward_denom"]


def test_stored_wrappers_are_the_originals_bytes() -> None:
    seven = encode(message_class("stratos.types.v1.Int")(Value="7"))
    large = encode(message_class("stratos.types.v1.Int")(Value="69300000000000000"))
    assert [bytes([len(one)]).hex() + one.hex() for one in (seven, large)] == ["030a0137", "130a113639333030303030303030303030303030"]


def _value(dice: Random, field: FieldDescriptor) -> Any:
    """A value of a field, never its zero."""
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Any":
            return public_key_to_any(Ed25519PublicKey(dice.randbytes(32)))
        if field.message_type.name in ("Timestamp", "Duration"):
            return message_class(field.message_type.full_name)(seconds=dice.randint(1, 2**31), nanos=dice.choice([0, 1, 5 * 10**8]))
        return _filled(dice, field.message_type)
    if is_int(field) or is_dec(field):
        return str(dice.randint(1, 2**255))
    if field.enum_type is not None:
        return dice.choice([one.number for one in field.enum_type.values if one.number])
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            return True
        case FieldDescriptor.TYPE_BYTES:
            return dice.randbytes(dice.randint(1, 48))
        case FieldDescriptor.TYPE_STRING:
            return bech32.encode(dice.randbytes(20)) if option_of(field, _SCALAR) else "".join(dice.choices('a<&>"\\ü\n', k=5))
    return dice.randint(1, 2**31)


def _filled(dice: Random, descriptor: Descriptor) -> Any:
    """A message with every field set, and one of each oneof."""
    message = message_class(descriptor.full_name)()
    chosen = {dice.choice([field.name for field in one.fields]) for one in descriptor.oneofs}
    for field in descriptor.fields:
        if field.containing_oneof is not None and field.name not in chosen:
            continue
        if field.is_repeated:
            getattr(message, field.name).extend([_value(dice, field) for _ in range(dice.randint(1, 2))])
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(_value(dice, field))
        else:
            setattr(message, field.name, _value(dice, field))
    return message


@pytest.mark.parametrize("descriptor", own_messages(), ids=lambda one: one.full_name)
def test_every_message_survives_json_amino_json_and_bytes(descriptor: Descriptor) -> None:
    for seed in range(3):
        message = _filled(Random(seed), descriptor)
        cls = type(message)
        raw = encode(message)
        read = cls.FromString(raw)
        assert read == message
        assert encode(read) == raw
        assert from_json(cls, loads(dumps(message))) == message
        signed = amino_json.message_json(message)
        assert amino_json.sign_bytes(amino_json.message_json(from_json(cls, to_json(read)))) == amino_json.sign_bytes(signed)
        assert signed["type"] == (option_of(descriptor, _AMINO_NAME) or f"/{descriptor.full_name}")
        assert len(signed["value"]) == len(message.ListFields()), "what is set is signed"
        if option_of(descriptor, _SIGNER):
            assert message_signers_of(message)
    empty = encode(message_class(descriptor.full_name)())
    assert encode(from_json(cls, to_json(cls.FromString(empty)))) == empty, "an empty one comes back as empty as it went"


def test_what_no_module_handles_is_not_served() -> None:
    app = build_application(MemoryBackend())
    handled = {name for module in app.modules for name in module.messages}
    served = {path.split("/")[1] for path in app.queries.paths}
    loaded = {module.name for module in app.modules}
    for package in ("register", "sds", "pot", "settlement", "grant"):
        if package not in loaded:
            assert not any(name.startswith(f"stratos.{package}.") for name in (*handled, *served))
