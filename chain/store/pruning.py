"""Which versions are kept: the SDK's pruning policies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pruning:
    """``keep_recent`` versions stay besides the latest; every ``interval`` versions the rest is deleted. Interval 0 keeps all."""

    keep_recent: int
    interval: int

    @classmethod
    def named(cls, name: str, keep_recent: int = 0, interval: int = 0) -> Pruning:
        """``default``, ``nothing``, ``everything`` or ``custom``. Raises ValueError naming the setting."""
        if name == "custom":
            if interval < 10:
                raise ValueError(f"pruning-interval must be at least 10, got {interval}")
            if keep_recent < 2:
                raise ValueError(f"pruning-keep-recent must be at least 2, got {keep_recent}")
            return cls(keep_recent, interval)
        try:
            return _NAMED[name]
        except KeyError:
            raise ValueError(f"pruning must be default, nothing, everything or custom, got {name!r}") from None

    def oldest_to_delete(self, version: int) -> int:
        """With ``version`` the latest: the highest version that may go, whatever the interval; 0 for none."""
        return max(version - self.keep_recent - 1, 0) if self.interval else 0

    def target(self, version: int) -> int:
        """After committing ``version``: the highest version that may go; 0 for none now."""
        if not self.interval or version % self.interval:
            return 0
        return self.oldest_to_delete(version)


KEEP_ALL = Pruning(0, 0)
_NAMED = {"default": Pruning(362880, 10), "nothing": KEEP_ALL, "everything": Pruning(2, 10)}
