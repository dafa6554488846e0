"""The committed store: IAVL-shaped trees, one per module store, under one app hash. ``README.md`` is its specification."""
