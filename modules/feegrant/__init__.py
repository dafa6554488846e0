"""Allowances to pay fees from another's account."""
