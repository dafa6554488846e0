"""What the ledger's operations do: plain functions over tables, one file per theme (docs/adr/0008; README.md is the specification).

signed bytes ──► apply: form, sender, nonce ──► observe · leases · commit · windows · releases · nodes · moves · files · epochs · tick ──► rows
"""
