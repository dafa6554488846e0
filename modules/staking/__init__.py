"""Stake, as far as a genesis validator set needs it. ``README.md`` is the specification and says what is not here."""
