"""Several meta nodes with one ledger: blocks that CometBFT orders, what meta nodes ask each other, and who of them does what.

Source: docs/adr/0010.
"""
