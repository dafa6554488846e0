"""The native twin of the tree: ``core.c``, built by ``make setup``. Never required to run; the plain form is the oracle."""
