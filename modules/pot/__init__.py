"""Pot: work is paid. So far its arithmetic alone."""
