"""Networks, their parameters, and the building and checking of genesis files."""
