"""Compile ``proto/`` into ``chain/codec/descriptors.binpb``. ``--check`` only compares, for ``make check``."""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
TARGET = ROOT / "chain" / "codec" / "descriptors.binpb"


def compile_descriptors() -> bytes:
    """The FileDescriptorSet of every source, dependencies first, without comments."""
    files = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.proto"))
    well_known = resources.files("grpc_tools").joinpath("_proto")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.binpb"
        # Stored values use wrapper messages that no source imports.
        files.append("google/protobuf/wrappers.proto")
        arguments = ["protoc", f"-I{SOURCES}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}", *files]
        if protoc.main(arguments) != 0:
            raise SystemExit("proto/: compilation failed; see the lines above")
        return out.read_bytes()


def main() -> None:
    compiled = compile_descriptors()
    if "--check" in sys.argv[1:]:
        if compiled != TARGET.read_bytes():
            raise SystemExit(f"{TARGET.relative_to(ROOT)} is not what proto/ compiles to: run `make proto` and commit the result")
        return
    TARGET.write_bytes(compiled)
    print(f"{TARGET.relative_to(ROOT)}: {len(compiled)} bytes from proto/")


if __name__ == "__main__":
    main()
