"""``ppd``, the resource node: it keeps shares, serves them, proves them and earns."""
