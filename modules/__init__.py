"""One package per module of the chain. ``docs/modules.md`` describes what a module is made of."""
