"""Distribution: rewards of validators and their delegators, and the community pool."""
