"""Authorizations to act for another."""
