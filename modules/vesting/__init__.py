"""Messages that make vesting accounts."""
