"""Validators that do not sign are jailed, and every infraction costs stake. ``README.md`` is the specification."""
