"""The keyring: what it keeps, how the files look, and what it refuses."""

import base64
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import keyring as secret_stores
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail

from chain.crypto import jwe
from chain.crypto.amino import AminoError, legacy_record
from chain.crypto.keyring import Keyring, KeyringError, MissingKey, Record, open_keyring
from chain.crypto.keyring_backends import plain_folder
from chain.crypto.keys import MultisigPublicKey, PrivateKey
from chain.errors import WrongPassword

LEGACY: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keyring_legacy.json").read_text())
ETH = PrivateKey(b"\x07" * 32, "eth_secp256k1")
PLAIN = PrivateKey(b"\x08" * 32, "secp256k1")
PASSPHRASE = "eight or more"


class Lines:
    """Answers prompts from a list, and remembers prompts and remarks."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.prompts: list[str] = []
        self.remarks: list[str] = []

    def ask(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


def file_ring(folder: Path, *lines: str) -> tuple[Keyring, Lines]:
    user = Lines(*lines)
    return open_keyring("file", folder, ask=user.ask, notify=user.remarks.append), user


def plain_ring(folder: Path) -> Keyring:
    return open_keyring("test", folder)


@pytest.fixture(params=["memory", "test", "file"])
def ring(request: pytest.FixtureRequest, tmp_path: Path) -> Keyring:
    return open_keyring(request.param, tmp_path, ask=lambda prompt: PASSPHRASE)


def test_keys_of_every_kind_come_back_by_name_and_by_address(ring: Keyring) -> None:
    multisig = MultisigPublicKey(2, (ETH.public_key, PLAIN.public_key))
    kept = [ring.add_private("one", ETH), ring.add_private("two", PLAIN), ring.add_public("many", multisig)]
    kept.append(ring.add_public("seen", PrivateKey(b"\x09" * 32, "secp256k1").public_key))
    kept.append(ring.add(Record("device", "ledger", PrivateKey(b"\x0a" * 32, "secp256k1").public_key, None, (44, 606, 1, False, 2))))
    for record in kept:
        assert ring.key(record.name) == record
        assert ring.key_by_address(record.address) == record
    assert [record.name for record in ring.records()] == ["device", "many", "one", "seen", "two"]
    assert [record.kind for record in ring.records()] == ["ledger", "multi", "local", "offline", "local"]


def test_a_key_signs_and_what_has_no_private_part_does_not(ring: Keyring) -> None:
    ring.add_private("one", ETH)
    ring.add_public("seen", PLAIN.public_key)
    signature, public_key = ring.sign("one", b"message")
    assert public_key.verify(b"message", signature)
    with pytest.raises(KeyringError, match="only local keys"):
        ring.sign("seen", b"message")


def test_a_name_or_an_address_is_kept_once(ring: Keyring) -> None:
    ring.add_private("one", ETH)
    with pytest.raises(KeyringError, match="cannot overwrite key 'one'"):
        ring.add_private("one", PLAIN)
    with pytest.raises(KeyringError, match="already kept as 'one'"):
        ring.add_private("another", ETH)
    assert [record.name for record in ring.records()] == ["one"]


def test_replacing_a_key_by_one_that_is_kept_elsewhere_changes_nothing(ring: Keyring) -> None:
    ring.add_private("one", ETH)
    ring.add_private("two", PLAIN)
    with pytest.raises(KeyringError, match="already kept as 'two'"):
        ring.add(Record.of("one", PLAIN), replace=True)
    assert ring.private_key("one") == ETH
    other = PrivateKey(b"\x0b" * 32, "secp256k1")
    ring.add(Record.of("one", other), replace=True)
    assert ring.private_key("one") == other
    with pytest.raises(MissingKey):
        ring.key_by_address(ETH.public_key.address)


def test_delete_and_rename_keep_names_and_addresses_in_step(ring: Keyring) -> None:
    ring.add_private("one", ETH)
    ring.add_private("two", PLAIN)
    ring.rename("one", "uno")
    assert ring.key_by_address(ETH.public_key.address).name == "uno"
    with pytest.raises(KeyringError, match="key already exists"):
        ring.rename("uno", "two")
    ring.delete("uno")
    for lost in (lambda: ring.key("uno"), lambda: ring.key("one"), lambda: ring.key_by_address(ETH.public_key.address), lambda: ring.delete("one")):
        with pytest.raises(MissingKey) as caught:
            lost()
        assert (caught.value.codespace, caught.value.code) == ("sdk", 22)
    assert [record.name for record in ring.records()] == ["two"]


def test_find_takes_names_before_addresses(ring: Keyring) -> None:
    from chain.crypto import address

    ring.add_private("one", ETH)
    text = address.encode(ETH.public_key.address)
    assert ring.find("one").name == ring.find(text).name == "one"
    ring.add_private(text, PLAIN)
    assert ring.find(text).private_key == PLAIN
    for unknown in ("nobody", address.encode(bytes(20))):
        with pytest.raises(MissingKey):
            ring.find(unknown)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "n" * 101])
def test_names_that_cannot_be_shown_are_refused(ring: Keyring, name: str) -> None:
    with pytest.raises(KeyringError, match="1 to 100 printable characters"):
        ring.add_private(name, ETH)
    assert ring.records() == []


def test_names_with_slashes_and_percent_signs_stay_inside_the_folder(tmp_path: Path) -> None:
    ring = plain_ring(tmp_path)
    for number, name in enumerate(["../out", "a/b", "100%", "%2F", "é ü"], start=1):
        ring.add_private(name, PrivateKey(bytes([number]) * 32, "secp256k1"))
        assert ring.key(name).name == name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keyring-test"]
    assert {record.name for record in ring.records()} == {"../out", "a/b", "100%", "%2F", "é ü"}
    assert (tmp_path / "keyring-test" / "..%2Fout.info").exists()


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    plain_ring(tmp_path).add_private("one", ETH)
    file_ring(tmp_path, PASSPHRASE, PASSPHRASE)[0].add_private("one", ETH)
    for folder in ("keyring-test", "keyring-file"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
        files = list((tmp_path / folder).iterdir())
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert not any(ETH.raw in path.read_bytes() or ETH.raw.hex() in path.read_text() for path in files)
    assert sorted(path.name for path in (tmp_path / "keyring-file").iterdir()) == sorted(
        ["one.info", f"{ETH.public_key.address.hex()}.address", "keyhash"]
    )


def test_nothing_is_written_or_asked_before_the_first_key(tmp_path: Path) -> None:
    ring, user = file_ring(tmp_path)
    assert ring.records() == []
    assert not ring.has("one")
    assert user.prompts == []
    assert list(tmp_path.iterdir()) == []


def test_a_new_passphrase_is_typed_twice_and_asked_for_once_afterwards(tmp_path: Path) -> None:
    ring, user = file_ring(tmp_path, PASSPHRASE, PASSPHRASE)
    ring.add_private("one", ETH)
    ring.add_private("two", PLAIN)
    assert user.prompts == ["Enter keyring passphrase (attempt 1/3):", "Re-enter keyring passphrase:"]
    ring, user = file_ring(tmp_path, PASSPHRASE)
    assert [record.private_key for record in ring.records()] == [ETH, PLAIN]
    assert len(user.prompts) == 1
    assert bcrypt.checkpw(PASSPHRASE.encode(), (tmp_path / "keyring-file" / "keyhash").read_bytes())


def test_three_wrong_passphrases_are_the_end(tmp_path: Path) -> None:
    file_ring(tmp_path, PASSPHRASE, PASSPHRASE)[0].add_private("one", ETH)
    ring, user = file_ring(tmp_path, "wrong one", "short", "wrong two", PASSPHRASE)
    with pytest.raises(WrongPassword, match="too many failed passphrase attempts"):
        ring.records()
    assert user.remarks == ["incorrect passphrase", "password must be at least 8 characters", "incorrect passphrase"]
    ring, user = file_ring(tmp_path, "wrong one", PASSPHRASE)
    assert ring.private_key("one") == ETH


def test_a_new_passphrase_that_differs_the_second_time_is_asked_for_again(tmp_path: Path) -> None:
    ring, user = file_ring(tmp_path, PASSPHRASE, "another one", "x" * 73, PASSPHRASE, PASSPHRASE)
    ring.add_private("one", ETH)
    assert user.remarks == ["passphrase do not match", "password must be at most 72 bytes"]


def test_no_passphrase_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="no keyring passphrase was given"):
        file_ring(tmp_path)[0].add_private("one", ETH)
    assert not (tmp_path / "keyring-file").exists()
    file_ring(tmp_path, PASSPHRASE, PASSPHRASE)[0].add_private("one", ETH)
    with pytest.raises(KeyringError, match="no keyring passphrase was given"):
        file_ring(tmp_path)[0].records()


def test_a_lost_keyhash_does_not_let_a_second_passphrase_in(tmp_path: Path) -> None:
    file_ring(tmp_path, PASSPHRASE, PASSPHRASE)[0].add_private("one", ETH)
    keyhash = tmp_path / "keyring-file" / "keyhash"
    keyhash.unlink()
    ring, user = file_ring(tmp_path, "another passphrase", "another passphrase", PASSPHRASE)
    ring.add_private("two", PLAIN)
    assert user.remarks == ["incorrect passphrase", "incorrect passphrase"]
    assert bcrypt.checkpw(PASSPHRASE.encode(), keyhash.read_bytes())
    keyhash.write_text("nonsense")
    with pytest.raises(KeyringError, match="keyhash of the keyring is damaged"):
        file_ring(tmp_path, PASSPHRASE)[0].records()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda token: "", "five parts"),
        (lambda token: "hello", "five parts"),
        (lambda token: token[:-8], "tag"),
        (lambda token: token.replace(token.split(".")[0], "e30"), "expected the algorithms"),
        (lambda token: token.replace(token.split(".")[0], "W10"), "expected the algorithms"),
        (lambda token: token.replace(token.split(".")[0], "ab!c"), "base64url"),
        (lambda token: "é" * 20, "ascii"),
        (lambda token: token + "x" * (1 << 20), "larger than"),
        (lambda token: jwe.seal(b"[]", "test", ""), "no key file"),
        (lambda token: jwe.seal(b'{"Data":"*"}', "test", ""), "no key file"),
    ],
)
def test_a_damaged_key_file_is_named_and_the_others_are_listed(tmp_path: Path, damage: Callable[[str], str], said: str) -> None:
    user = Lines()
    ring = open_keyring("test", tmp_path, notify=user.remarks.append)
    ring.add_private("one", ETH)
    ring.add_private("two", PLAIN)
    path = tmp_path / "keyring-test" / "one.info"
    path.write_text(damage(path.read_text()))
    with pytest.raises(KeyringError, match=said):
        ring.key("one")
    assert [record.name for record in ring.records()] == ["two"]
    assert len(user.remarks) == 1
    assert "one.info" in user.remarks[0]


def test_changed_contents_do_not_open(tmp_path: Path) -> None:
    ring = plain_ring(tmp_path)
    ring.add_private("one", ETH)
    path = tmp_path / "keyring-test" / "one.info"
    parts = path.read_text().split(".")
    sealed = bytearray(base64.urlsafe_b64decode(parts[3] + "=="))
    sealed[0] ^= 1
    parts[3] = base64.urlsafe_b64encode(bytes(sealed)).rstrip(b"=").decode()
    path.write_text(".".join(parts))
    with pytest.raises(WrongPassword, match=r"one\.info"):
        ring.key("one")


def test_iterations_that_would_stall_the_reader_are_refused() -> None:
    header, rest = jwe.seal(b"{}", "test", "").split(".", 1)
    for count in (0, -1, 1_300_001, 10**30, "8192", None, 1.5):
        fields = json.loads(base64.urlsafe_b64decode(header + "==")) | {"p2c": count}
        forged = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
        with pytest.raises(jwe.JweError, match="PBKDF2 iterations"):
            jwe.open_token(f"{forged}.{rest}", "test")


@pytest.mark.parametrize("kind", ["local", "offline", "multi", "ledger"])
def test_records_of_old_versions_are_read_and_rewritten(tmp_path: Path, kind: str) -> None:
    raw = bytes.fromhex(LEGACY[kind])
    name = legacy_record(raw).name
    plain_folder(tmp_path).set(f"{name}.info", raw)
    user = Lines()
    ring = open_keyring("test", tmp_path, notify=user.remarks.append)
    record = ring.key(name)
    assert (record.kind, record.name) == (kind, name)
    assert user.remarks == [f"Successfully migrated key {name}.info."]
    members = [PrivateKey(bytes([seed]) * 32, "secp256k1") for seed in (1, 2, 3)]
    expected = {
        "local": Record("one", "local", members[0].public_key, members[0]),
        "ledger": Record("two", "ledger", members[1].public_key, None, (44, 118, 3, False, 5)),
        "offline": Record("three", "offline", members[2].public_key),
        "multi": Record("four", "multi", MultisigPublicKey(2, tuple(member.public_key for member in members))),
    }
    assert record == expected[kind]
    assert ring.key(name) == record
    assert len(user.remarks) == 1


@pytest.mark.parametrize("kind", ["local", "offline", "multi", "ledger"])
def test_no_prefix_of_an_old_record_is_taken_for_a_key(kind: str) -> None:
    raw = bytes.fromhex(LEGACY[kind])
    for size in range(len(raw)):
        with pytest.raises(AminoError):
            legacy_record(raw[:size])


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    for backend in ("kwallet", "pass", "", "TEST"):
        with pytest.raises(KeyringError, match="expected one of os, file, test, memory"):
            open_keyring(backend, tmp_path)


class Store(KeyringBackend):
    """A secret store in memory, behind the interface every real one has."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.items.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.items[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.items[service, username]


@pytest.fixture
def desktop() -> Iterator[Callable[[KeyringBackend], None]]:
    before = secret_stores.get_keyring()
    yield secret_stores.set_keyring
    secret_stores.set_keyring(before)


def test_the_os_backend_keeps_keys_in_the_secret_store(desktop: Callable[[KeyringBackend], None], tmp_path: Path) -> None:
    store = Store()
    desktop(store)
    ring = open_keyring("os", tmp_path)
    ring.add_private("one", ETH)
    ring.add_private("two", PLAIN)
    ring.delete("one")
    again = open_keyring("os", tmp_path)
    assert [record.private_key for record in again.records()] == [PLAIN]
    assert list(tmp_path.iterdir()) == []
    assert {service for service, _ in store.items} == {"stchaind"}


def test_without_a_secret_store_the_os_backend_says_what_to_use(desktop: Callable[[KeyringBackend], None], tmp_path: Path) -> None:
    desktop(fail.Keyring())
    with pytest.raises(KeyringError, match="use --keyring-backend file"):
        open_keyring("os", tmp_path)
