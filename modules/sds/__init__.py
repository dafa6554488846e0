"""Sds: ozone is bought. So far its arithmetic alone."""
