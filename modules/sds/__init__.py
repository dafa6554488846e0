"""Sds: ozone is bought, and files are recorded."""
