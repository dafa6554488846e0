"""What meta nodes tell their ledger of the value chain, and the chain of their epochs.

chain ── blocks, state ──► founding, observing, observer ── found, observe ──► ledger ── closed epoch ──► reporter ── two messages ──► chain
"""
