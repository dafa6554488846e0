"""The native twin of what is hashed most: ``leaves.c``, built by ``make setup``. Never required to run; hashlib is the oracle."""
