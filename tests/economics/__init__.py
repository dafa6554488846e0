"""Random histories of the ozone economy: a plain model, what was promised, and the worlds that must agree with it."""
