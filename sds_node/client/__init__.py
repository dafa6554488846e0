"""The library for users of the storage network: sessions that a wallet grants, and transfers of shares and whole objects."""
