"""Who a node is on the wire: an ed25519 key, the 20-byte address made from it, and the TLS contexts that prove it.

    seed ─► ed25519 key ─► certificate ─► TLS 1.3, both ways ─► the peer's key ─► the peer's address

There is no authority. OpenSSL wants one before it lets a server see a client's certificate, so there is one whose private key everybody has
(``_nobody``): it vouches for nothing. What counts is TLS's own proof that the peer holds the certificate's key; README.md has the argument.
"""

from __future__ import annotations

import datetime
import os
import secrets
import ssl
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from nacl.bindings import crypto_core_ed25519_is_valid_point

from sds_node.p2p import address_of
from sds_node.wire.errors import HandshakeFailed

SEED_BYTES: Final = 32
ALPN: Final = "stratos-wire"
AUTHORITY_TEXT: Final = b"stratos/wire/v1: everybody has this key"
# RFC 5280 4.1.2.5: the date of a certificate that does not expire. A wrong clock must not cut a node off.
_BEGIN: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_END: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Identity:
    """A node's or a session's key on the wire. ``seed`` is the ed25519 private key, 32 bytes."""

    seed: bytes

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"the seed of an ed25519 key has {SEED_BYTES} bytes, got {len(self.seed)}")

    @classmethod
    def ephemeral(cls) -> Identity:
        """A new key, for one session."""
        return cls(secrets.token_bytes(SEED_BYTES))

    @property
    def public_key(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def address(self) -> bytes:
        return address_of(self.public_key)

    def __repr__(self) -> str:
        return f"Identity({self.address.hex()})"


@lru_cache(maxsize=1)
def _nobody() -> tuple[Ed25519PrivateKey, x509.Certificate]:
    """The authority without authority: key and certificate, the same for everyone, made from a text."""
    key = Ed25519PrivateKey.from_private_bytes(sha256(AUTHORITY_TEXT).digest())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stratos wire: nobody")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = _dated(x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1))
    # path_length 0: no certificate of theirs may issue another, so a chain is one certificate long.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return key, builder.sign(key, None)


def _dated(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    return builder.not_valid_before(_BEGIN).not_valid_after(_END)


def certificate_of(key: Ed25519PublicKey) -> bytes:
    """The certificate (PEM) of a public key. It claims nothing: anybody can make it for any key."""
    authority, top = _nobody()
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address_of(raw).hex())])
    # RFC 5280 wants a positive serial: 63 bits of the key's hash.
    serial = int.from_bytes(sha256(raw).digest()[:8], "big") >> 1 or 1
    builder = _dated(x509.CertificateBuilder().subject_name(name).issuer_name(top.subject).public_key(key).serial_number(serial))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.sign(authority, None).public_bytes(Encoding.PEM)


def contexts(identity: Identity) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(for dialing, for accepting): TLS 1.3 with the identity's certificate, the peer's demanded, no tickets. Takes milliseconds: make them once."""
    key = Ed25519PrivateKey.from_private_bytes(identity.seed)
    # The ssl module reads keys from files alone. So the key passes through a file of mode 0600, encrypted with a password that nobody keeps.
    password = secrets.token_hex(32).encode()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    top = _nobody()[1].public_bytes(Encoding.PEM).decode()
    made = []
    with tempfile.TemporaryDirectory(prefix="stratos-wire-") as folder:
        path = os.path.join(folder, "identity.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret + certificate_of(key.public_key()))
        for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
            context = ssl.SSLContext(protocol)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
            context.check_hostname = False  # a name proves nothing here; the key does
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=top)
            context.load_cert_chain(path, password=password)
            context.set_alpn_protocols([ALPN])
            if protocol == ssl.PROTOCOL_TLS_SERVER:
                context.num_tickets = 0  # a resumed session would skip the proof of the key
            made.append(context)
    return made[0], made[1]


def proven_key(session: ssl.SSLObject) -> bytes:
    """The peer's public key (32 bytes), proved by a finished handshake. Raises HandshakeFailed for another kind of key, version or protocol."""
    if session.version() != "TLSv1.3" or session.selected_alpn_protocol() != ALPN:
        raise HandshakeFailed(f"expected TLS 1.3 and protocol {ALPN!r}, got {session.version()} and {session.selected_alpn_protocol()!r}")
    der = session.getpeercert(binary_form=True)
    if der is None:
        raise HandshakeFailed("the peer showed no certificate: every side of a connection has one")
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError) as error:
        raise HandshakeFailed(f"the peer's certificate does not parse: {error}") from None
    except Exception as error:  # cryptography raises UnsupportedAlgorithm and others for keys it does not know
        raise HandshakeFailed(f"the peer's certificate has a key of an unknown kind: {type(error).__name__}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise HandshakeFailed(f"the peer's certificate has a {type(key).__name__}: a node's key is ed25519")
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    # Under a point of small order one signature holds for every message: such a key proves nothing.
    if not crypto_core_ed25519_is_valid_point(raw):
        raise HandshakeFailed("the peer's key is no point of the prime group: a signature under it proves nothing")
    return raw
