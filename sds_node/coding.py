"""A segment to its shares and back: systematic Cauchy Reed-Solomon over GF(2^8), or plain copies where k is 1.

    segment  ┌─ share 0 ─┬─ share 1 ─┬─ … ─┬─ share k-1 ─┐ zeros up to a multiple of k × 16 bytes; these shares are the segment's own bytes
             │ col │ col │           │     │             │
    share i (i ≥ k) at byte b  =  Σ over j < k of  share j at byte b  ÷  (i XOR j)         in GF(2^8), polynomial 0x11d

Every byte of a share depends on the bytes at the same place of the others alone. So the work is done in columns of 16 KiB, which stay in the
processor's cache, and slices of shares (leaves, say) can be recreated from the same slices of k others. pyeclib (ISA-L) computes a column; its
80-byte headers never leave this file. Where the wheel of pyeclib brings ISA-L as a library that can be asked for the same shares, ``encode`` and
``add_shares`` ask that one: it writes into place, without copies and without the interpreter's lock.

pyeclib holds that lock, but for one column only, so another thread waits no longer than the interpreter's switch interval. Coding is
several times faster than TLS, so nothing here needs a pool of processes; every function may be called from any thread. What costs most is fresh
memory, which the system clears page by page: give ``add_shares`` the same memory, or one ``workspace``, again and again. Source: ADR 7,
"what a file becomes".
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyeclib
from cffi import FFI
from pyeclib.ec_iface import ECDriver, ECDriverError

from chain.crypto.native import open_library
from sds_node.merkle import Buffer, share_root
from sds_node.schemes import ALIGN_BYTES, SEGMENT_BYTES, Scheme, share_bytes

MAX_PIECES: Final = 32
"""pyeclib's limit for k, and for n - k."""
COLUMN_BYTES: Final = 16 * 1024
STRETCH_BYTES: Final = 128 * 1024
"""So much of each share is coded by one call of ISA-L: those of 5 of 10 are still in the cache when they are hashed."""
_BACKEND: Final = "isa_l_rs_cauchy"
_POLYNOMIAL: Final = 0x11D
# What liberasurecode writes before a fragment, little-endian: number (at 0), length (at 4), length of what was encoded (at 12), and at 67 a CRC-32
# of the first 59 bytes.
_HEADER_BYTES: Final = 80
_SUMMED_BYTES: Final = 59
_CHECKSUM_AT: Final = 67
_TABLE_BYTES: Final = 32
"""Of ISA-L's tables for each pair of an own and an added share."""

_ffi: Any = FFI()
_ffi.cdef(
    "void gf_gen_cauchy1_matrix(unsigned char *matrix, int shares, int own);"
    "void ec_init_tables(int own, int rows, unsigned char *matrix, unsigned char *tables);"
    "void ec_encode_data(int size, int own, int rows, unsigned char *tables, unsigned char **data, unsigned char **added);"
)


@lru_cache(1)
def _isal() -> Any | None:
    """ISA-L, as pyeclib's wheel brings it. Most commands code nothing, so it is looked for when it is needed."""
    for path in sorted(Path(pyeclib.__file__).parent.with_name("pyeclib.libs").glob("libisal*.so*")):
        found = open_library(_ffi, path)
        if found is not None and all(hasattr(found, name) for name in ("gf_gen_cauchy1_matrix", "ec_init_tables", "ec_encode_data")):
            return found
    return None


class CodingError(Exception):
    """Shares or a segment that cannot be coded; the message says what was expected and what came."""


class WrongIndex(CodingError):
    """A share's number that the scheme has not, that came twice, or that was asked for although it is there."""


class WrongLength(CodingError):
    """A segment or share of another length than it must have."""


class NotEnoughShares(CodingError):
    """Fewer shares than give the segment back. ``wrong`` are the numbers of those that were left out since their root or length is wrong."""

    def __init__(self, have: int, needed: int, wrong: Sequence[int] = ()) -> None:
        self.have, self.needed, self.wrong = have, needed, tuple(wrong)
        left_out = f" (wrong ones, left out: {', '.join(map(str, wrong))})" if wrong else ""
        super().__init__(f"{needed} good shares are needed and {have} came{left_out}: ask more holders")


class WrongLibrary(CodingError):
    """The installed pyeclib computes other shares than the network's."""


def encode(scheme: Scheme, segment: Buffer, workspace: bytearray | None = None) -> list[memoryview]:
    """A segment of at most 32 MiB → its n shares in order, each of ``share_bytes(scheme, len(segment))`` bytes.

    The first k are views of ``segment`` itself (but for the padded end), the others of ``workspace`` if it is given, which then has at least
    (n - k) × share bytes: neither may change while the shares are used. Raises WrongLength, CodingError.
    """
    view = _segment(scheme, segment)
    if scheme.k == 1:
        return [view] * scheme.n
    size = share_bytes(scheme, len(view))
    made_in = _workspace(workspace, scheme.parity * size)
    added = [made_in[at : at + size] for at in range(0, len(made_in), size)]
    own = _pieces(scheme, view, size)
    for start in range(0, size, STRETCH_BYTES):
        add_shares(scheme, own, added, start, min(start + STRETCH_BYTES, size))
    return own + [out.toreadonly() for out in added]


def add_shares(scheme: Scheme, own: Sequence[memoryview], added: Sequence[memoryview], start: int, stop: int) -> None:
    """Bytes ``start`` to ``stop`` of the n - k shares that the code adds, from the same bytes of a segment's own k > 1 shares, into ``added``.

    All are contiguous bytes, at least ``stop`` of them, and what is asked for a multiple of 16. Raises WrongLength, CodingError.
    """
    _check_scheme(scheme)
    if len(own) != scheme.k or len(added) != scheme.parity or min(map(len, [*own, *added])) < stop or not 0 <= start <= stop:
        raise WrongLength(f"{scheme.k} shares of at least {stop} bytes give {scheme.parity} others as long, got {[len(one) for one in own]} bytes")
    if (stop - start) % ALIGN_BYTES:
        raise WrongLength(f"shares are coded by {ALIGN_BYTES} bytes, not by {stop - start}")
    code = _code_of(scheme)
    if code.tables is not None and stop > start:
        code.add([one[start:stop] for one in own], [one[start:stop] for one in added])
        return
    for at in range(start, stop, COLUMN_BYTES):
        end = min(at + COLUMN_BYTES, stop)
        made = code.driver.encode(b"".join(one[at:end] for one in own))[scheme.k :]
        for out, part in zip(added, made, strict=True):
            out[at:end] = memoryview(part)[_HEADER_BYTES:]


def _check_scheme(scheme: Scheme) -> None:
    if not (1 <= scheme.k <= MAX_PIECES and (scheme.k == 1 or scheme.parity >= 1) and 0 <= scheme.parity <= MAX_PIECES):
        raise CodingError(f"k and n - k are at most {MAX_PIECES}, and n is more than k unless k is 1; {scheme.k} of {scheme.n} came")


def _segment(scheme: Scheme, segment: Buffer) -> memoryview:
    _check_scheme(scheme)
    view = memoryview(segment).cast("B")
    if len(view) > SEGMENT_BYTES:
        raise WrongLength(f"a segment has at most {SEGMENT_BYTES} bytes, not {len(view)}: cut the stored stream at that length")
    return view


def _pieces(scheme: Scheme, view: memoryview, size_bytes: int) -> list[memoryview]:
    """The first k shares: views of the segment, but copies where zeros follow its end."""
    parts = [view[index * size_bytes : (index + 1) * size_bytes] for index in range(scheme.k)]
    return [part if len(part) == size_bytes else memoryview(bytes(part).ljust(size_bytes, b"\x00")) for part in parts]


def _workspace(given: bytearray | None, needed_bytes: int) -> memoryview:
    if given is not None and len(given) < needed_bytes:
        raise WrongLength(
            f"the workspace has {len(given)} bytes and needs {needed_bytes}: make one for a segment of {SEGMENT_BYTES} bytes and use it for all"
        )
    return memoryview(bytearray(needed_bytes) if given is None else given)[:needed_bytes]


def decode(scheme: Scheme, segment_bytes: int, shares: Iterable[tuple[int, Buffer]], workspace: bytearray | None = None) -> memoryview:
    """Any k or more of a segment's shares, as (number, bytes), and the segment's length → the segment.

    Shares of the segment's own bytes are used first, so that little or nothing has to be computed. With k = 1 it is a view of a share, not a copy;
    else a view of ``workspace`` if that is given, which then has at least k × share bytes and in which no share lies. Whether a share's bytes are
    right its root says, not this function: see ``decode_checked``. Raises WrongIndex, WrongLength, NotEnoughShares, CodingError.
    """
    given = _given(scheme, shares)
    size = _share_size(scheme, segment_bytes)
    for index, share in given.items():
        if len(share) != size:
            raise WrongLength(f"a share of this segment of {segment_bytes} bytes has {size} bytes, but share {index} has {len(share)}")
    chosen = _chosen(scheme, given)
    if scheme.k == 1:
        return next(iter(chosen.values()))
    out = _workspace(workspace, scheme.k * size)
    missing = [index for index in range(scheme.k) if index not in chosen]
    for index, share in chosen.items():
        if index < scheme.k:
            out[index * size : (index + 1) * size] = share
    if missing:
        code = _code_of(scheme)
        for start, stop, fragments in code.columns(chosen, size):
            whole, width = memoryview(code.driver.decode(fragments)), stop - start
            for index in missing:
                out[index * size + start : index * size + stop] = whole[index * width : (index + 1) * width]
    return out.toreadonly()[:segment_bytes]


def recreate(scheme: Scheme, shares: Iterable[tuple[int, Buffer]], wanted: Sequence[int]) -> list[memoryview]:
    """Any k or more of a segment's shares, as (number, bytes), → the shares of the numbers ``wanted``, in that order.

    Instead of shares the same slice of each may be given, of a multiple of 16 bytes; then the same slices come out. Nothing but what is wanted is
    computed. Raises WrongIndex (for one that is there already, too), WrongLength, NotEnoughShares, CodingError.
    """
    given = _given(scheme, shares)
    for at, index in enumerate(wanted):
        if not 0 <= index < scheme.n or index in given or index in wanted[:at]:
            raise WrongIndex(f"share {index} cannot be recreated: it is not one of 0 to {scheme.n - 1}, is among those given, or was asked for twice")
    sizes = sorted({len(share) for share in given.values()})
    if len(sizes) > 1:
        raise WrongLength(f"shares of one segment have one length, but these have {', '.join(map(str, sizes))} bytes")
    chosen = _chosen(scheme, given)
    size, longest = sizes[0], share_bytes(scheme, SEGMENT_BYTES)
    if size > longest or (scheme.k > 1 and (size == 0 or size % ALIGN_BYTES)):
        raise WrongLength(f"a share or slice has a multiple of {ALIGN_BYTES} bytes, at most {longest} (with k = 1: any number of bytes), not {size}")
    if scheme.k == 1:
        return [next(iter(chosen.values()))] * len(wanted)
    code, made = _code_of(scheme), [bytearray(size) for _ in wanted]
    for start, stop, fragments in code.columns(chosen, size):
        for out, index in zip(made, wanted, strict=True):
            out[start:stop] = memoryview(code.driver.reconstruct(fragments, [index])[0])[_HEADER_BYTES:]
    return [memoryview(out).toreadonly() for out in made]


@dataclass(frozen=True, slots=True)
class Checked:
    """A segment whose shares were checked, and the numbers of the shares that had a wrong root or length."""

    segment: memoryview
    wrong: tuple[int, ...]


def decode_checked(
    scheme: Scheme, segment_bytes: int, shares: Iterable[tuple[int, Buffer]], roots: Mapping[int, bytes], workspace: bytearray | None = None
) -> Checked:
    """As ``decode``, by good shares alone: ``roots`` has share roots by number, each proved (``merkle.share_proved``) or from the writer himself.

    Shares are judged in order until k are good; the rest is not looked at. One whose root is not given is wrong, too.
    Raises NotEnoughShares, which names the wrong ones, WrongIndex, WrongLength, CodingError.
    """
    size = _share_size(scheme, segment_bytes)
    good: list[tuple[int, memoryview]] = []
    wrong: list[int] = []
    for index, share in sorted(_given(scheme, shares).items()):
        if len(good) == scheme.k:
            break
        if len(share) == size and share_root(share) == roots.get(index):
            good.append((index, share))
        else:
            wrong.append(index)
    if len(good) < scheme.k:
        raise NotEnoughShares(len(good), scheme.k, wrong)
    return Checked(decode(scheme, segment_bytes, good, workspace), tuple(wrong))


@dataclass(frozen=True, slots=True)
class Slice:
    """``length`` bytes from ``offset`` on of share ``index``."""

    index: int
    offset: int
    length: int


def locate(scheme: Scheme, segment_bytes: int, offset: int, length: int) -> list[Slice]:
    """A range of a segment → where its bytes lie in the first k shares, in order. With k = 1 every share has it all; share 0 is named.
    A slice of a share that is lost comes from ``recreate``, by the same slice (widened to whole leaves) of k others.

    Raises WrongLength for a range outside the segment, CodingError.
    """
    size = _share_size(scheme, segment_bytes)
    if offset < 0 or length < 0 or offset + length > segment_bytes:
        raise WrongLength(f"{length} bytes from {offset} on are not within a segment of {segment_bytes} bytes")
    found = []
    while length:
        index, at = divmod(offset, size)
        taken = min(length, size - at)
        found.append(Slice(index, at, taken))
        offset, length = offset + taken, length - taken
    return found


def _share_size(scheme: Scheme, segment_bytes: int) -> int:
    _check_scheme(scheme)
    if not 0 <= segment_bytes <= SEGMENT_BYTES:
        raise WrongLength(f"a segment has from 0 to {SEGMENT_BYTES} bytes, not {segment_bytes}")
    return share_bytes(scheme, segment_bytes)


def _given(scheme: Scheme, shares: Iterable[tuple[int, Buffer]]) -> dict[int, memoryview]:
    """Shares by number. Raises WrongIndex; since no number may come twice, at most n of them are looked at."""
    _check_scheme(scheme)
    given: dict[int, memoryview] = {}
    for index, share in shares:
        if not 0 <= index < scheme.n:
            raise WrongIndex(f"the scheme has shares 0 to {scheme.n - 1}; there is no share {index}")
        if index in given:
            raise WrongIndex(f"share {index} came twice: give each share once")
        given[index] = memoryview(share).cast("B")
    return given


def _chosen(scheme: Scheme, given: dict[int, memoryview]) -> dict[int, memoryview]:
    """The k shares with the lowest numbers, which are those with the segment's own bytes if there are any."""
    if len(given) < scheme.k:
        raise NotEnoughShares(len(given), scheme.k)
    return {index: given[index] for index in sorted(given)[: scheme.k]}


@dataclass(frozen=True, slots=True)
class _Code:
    """pyeclib's coder of one (k, n), which was seen to compute the network's shares, and one of its headers. ``tables`` are ISA-L's, None without it."""

    k: int
    driver: Any
    header: bytes
    tables: Any = None

    def add(self, own: Sequence[memoryview], added: Sequence[memoryview]) -> None:
        """The added shares of k equally long slices, by ISA-L, into place."""
        data = [_ffi.from_buffer("unsigned char[]", one) for one in own]
        out = [_ffi.from_buffer("unsigned char[]", one, require_writable=True) for one in added]
        library: Any = _isal()
        library.ec_encode_data(len(own[0]), self.k, len(out), self.tables, _ffi.new("unsigned char *[]", data), _ffi.new("unsigned char *[]", out))

    def header_of(self, index: int, size_bytes: int) -> bytes:
        """The header that pyeclib wants before ``size_bytes`` of share ``index``."""
        header = bytearray(self.header)
        header[0:4] = index.to_bytes(4, "little")
        header[4:8] = size_bytes.to_bytes(4, "little")
        header[12:20] = (self.k * size_bytes).to_bytes(8, "little")
        header[_CHECKSUM_AT : _CHECKSUM_AT + 4] = zlib.crc32(header[:_SUMMED_BYTES]).to_bytes(4, "little")
        return bytes(header)

    def columns(self, chosen: dict[int, memoryview], size_bytes: int) -> Iterable[tuple[int, int, list[bytes]]]:
        """Of k shares of ``size_bytes``: (from, to, the fragments that pyeclib reads) of each column. It reads nothing but ``bytes``."""
        headers: list[bytes] = []
        for start in range(0, size_bytes, COLUMN_BYTES):
            stop = min(start + COLUMN_BYTES, size_bytes)
            if start == 0 or stop - start < COLUMN_BYTES:
                headers = [self.header_of(index, stop - start) for index in chosen]
            yield start, stop, [b"".join((header, share[start:stop])) for header, share in zip(headers, chosen.values(), strict=True)]


def _code_of(scheme: Scheme) -> _Code:
    return _made(scheme.k, scheme.n)


@lru_cache(maxsize=64)
def _made(k: int, n: int) -> _Code:
    """The coder of (k, n). Raises WrongLibrary when what it computes, takes or writes is not as this file and the network have it."""
    # Two units each, so that offsets count; every byte of a piece is another.
    size = 2 * ALIGN_BYTES
    probe = bytes((37 * at + 11) % 256 for at in range(k * size))
    try:
        driver = ECDriver(k=k, m=n - k, ec_type=_BACKEND)
        fragments = driver.encode(probe)
        code = _Code(k, driver, fragments[0][:_HEADER_BYTES])
        right = [fragment[_HEADER_BYTES:] for fragment in fragments] == _by_the_formula(probe, k, n)
        last = [code.header_of(index, size) + fragments[index][_HEADER_BYTES:] for index in range(n - k, n)]
        right = right and driver.decode(last) == probe and driver.reconstruct(last, [0])[0][_HEADER_BYTES:] == fragments[0][_HEADER_BYTES:]
    except (ECDriverError, IndexError) as error:
        raise WrongLibrary(f"pyeclib cannot code {k} of {n} shares with {_BACKEND}: {error}; install pyeclib 1.8 from its wheel") from None
    if not right:
        raise WrongLibrary(f"this pyeclib computes other shares for {k} of {n} than the network's; install pyeclib 1.8 from its wheel")
    return replace(code, tables=_tables(code, n))


def _tables(code: _Code, n: int) -> Any | None:
    """ISA-L's tables of a code; None where there is no ISA-L, or one that computes other shares than pyeclib."""
    library = _isal()
    if library is None:
        return None
    k, size = code.k, 65 * ALIGN_BYTES  # beyond what ISA-L does byte by byte, and no multiple of what it does at once
    matrix, tables = _ffi.new("unsigned char[]", k * n), _ffi.new("unsigned char[]", _TABLE_BYTES * k * (n - k))
    library.gf_gen_cauchy1_matrix(matrix, n, k)
    library.ec_init_tables(k, n - k, matrix + k * k, tables)
    probe = [bytes((37 * at + 11 * index + 5) % 256 for at in range(size)) for index in range(k)]
    added = [memoryview(bytearray(size)) for _ in range(n - k)]
    replace(code, tables=tables).add([memoryview(one) for one in probe], added)
    expected = [fragment[_HEADER_BYTES:] for fragment in code.driver.encode(b"".join(probe))[k:]]
    return tables if added == expected else None


def _by_the_formula(data: bytes, k: int, n: int) -> list[bytes]:
    """All shares of a few bytes, as the picture above says, by tables of powers of 2."""
    powers = [1]
    for _ in range(254):
        double = powers[-1] << 1
        powers.append(double ^ _POLYNOMIAL if double & 0x100 else double)
    logs = {power: exponent for exponent, power in enumerate(powers)}
    size = len(data) // k
    shares = [data[index * size : (index + 1) * size] for index in range(k)]
    for row in range(k, n):
        share = bytearray(size)
        for column in range(k):
            inverse = logs[row ^ column]
            for at, byte in enumerate(shares[column]):
                share[at] ^= powers[(logs[byte] - inverse) % 255] if byte else 0
        shares.append(bytes(share))
    return shares
