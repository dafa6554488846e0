"""``spd``, the meta node: it places, audits and settles."""
