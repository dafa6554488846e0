"""Transactions: from bytes to a checked, executed result."""
