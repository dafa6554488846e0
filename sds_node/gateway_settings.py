"""What an operator decides about a gateway. The same dataclass is a section of the node's settings file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sds_node.settings import value

RPC_PORT: Final = 18_281
OWNER_PORT: Final = 18_282
REST_PORT: Final = 18_581


@dataclass(frozen=True)
class Settings:
    enabled: bool = value(False, "Whether this node is a gateway: JSON-RPC for the original's clients.")
    host: str = value("127.0.0.1", "Address on which clients are listened to; 0.0.0.0 for all.")
    port: int = value(RPC_PORT, "TCP port of the JSON-RPC.", least=0, most=65_535)
    allowed_hosts: tuple[str, ...] = value(("localhost",), "Names that requests may be sent to, beside numbers; * for any.")
    allowed_origins: tuple[str, ...] = value(("*",), "Web pages that may call user_ methods, as https://example.com; * for all, none for none.")
    uploads_most: int = value(1_000, "Uploads under way at a time.", least=1, most=100_000)
    uploads_of_wallet: int = value(50, "Of them, of one wallet.", least=1, most=10_000)
    spool_bytes: int = value(64 << 30, "Disk space for uploads under way; a file is there until it is stored.", least=1 << 20)
    stores_at_once: int = value(4, "Uploads that are coded and sent to nodes at a time; each takes about 100 MiB of memory.", least=1, most=64)
    downloads_most: int = value(1_000, "Downloads under way at a time.", least=1, most=100_000)
    downloads_of_wallet: int = value(50, "Of them, of one wallet.", least=1, most=10_000)
    fetches_at_once: int = value(4, "Segments fetched at a time, of one wallet one less; each takes about 40 MiB of memory.", least=1, most=64)
    grace_s: float = value(3.0, "How long an upload whose bytes are all there waits for user_uploadSign.", least=0, most=60)
    upload_idle_s: int = value(900, "An upload of which nothing was heard for so long is dropped.", least=10, most=86_400)
    download_idle_s: int = value(300, "The same of a download.", least=10, most=86_400)
    streaming_port: int = value(0, f"TCP port of the REST for videos, {REST_PORT} in the original; 0: none.", least=0, most=65_535)
    owner: bool = value(False, "Whether owner_ methods are served, on a socket in the home: they spend from the node's wallet.")
    share_days: int = value(180, "How long a share holds whose maker does not say.", least=1, most=36_500)
