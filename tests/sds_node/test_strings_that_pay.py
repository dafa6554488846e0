"""Which strings of the original's clients the chain takes as authority for traffic: those of uploads and downloads, as clients sign them, and no others."""

from __future__ import annotations

import pytest

from chain.crypto import address as bech32
from modules.settlement.legacy import FRESH_S, TASK_S, paying_string
from sds_node import requests
from sds_node.legacy import sequence_text
from sds_node.meta.legacy.guard import MAX_LEASE_S
from sds_node.meta.rules.leases import LEGACY_ACTIONS
from sds_node.requests import Action, signed_text, v2_text

WALLET = bech32.encode(bytes(range(20)))
SUBJECTS = {
    "file": ["v05ahm54qtdk0oogho52ujtk5v6rdlpbhumfshmg"],
    "link": ["r4nd0m_0123456789abcdef", "0123456789abcdef_0123456789_abcdef", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"],
    "link as shown": ["sds://r4nd0m_0123456789abcdef", "sds://r4nd0m_0123456789abcdef/pass", "r4nd0m_0123456789abcdef"],
    "share": ["0123456789abcdef", "0123456789abcdef_0123456789_abcdef"],
    "": [""],
}


@pytest.mark.parametrize("action", Action)
def test_of_all_that_clients_sign_uploads_and_downloads_pay(action: Action) -> None:
    for subject in SUBJECTS[action.value[0]]:
        text = signed_text(action, subject, WALLET, sequence_text(7) if action.value[1] else "", 1_767_225_600)
        asked = paying_string(text)
        assert (asked is not None) == (action in LEGACY_ACTIONS.values())
        if asked is not None:
            assert (asked.subject, asked.wallet, asked.sequence, asked.timestamp_s) == (subject, WALLET, 7, 1_767_225_600)
            assert asked.is_of_file == (action.value[0] == "file")


def test_a_string_of_version_2_pays_for_nothing() -> None:
    params = {"filehash": SUBJECTS["file"][0], "sequencenumber": sequence_text(7)}
    assert paying_string(v2_text("stratos-test-1", "user_requestUpload", params, WALLET, 1_767_225_600)) is None


def test_a_subject_that_looks_like_a_string_moves_no_border() -> None:
    inner = f"{'a' * 10}{WALLET}"
    asked = paying_string(f"{inner}{WALLET}{sequence_text(1)}5")
    assert asked is not None
    assert (asked.subject, asked.wallet) == (inner, WALLET)
    assert paying_string(f"{inner}{sequence_text(1)}5{WALLET}{sequence_text(1)}5") is None


def test_the_times_are_those_of_the_meta_nodes() -> None:
    assert (FRESH_S, TASK_S) == (requests.FRESH_S, MAX_LEASE_S)
