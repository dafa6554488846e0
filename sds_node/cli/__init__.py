"""The commands ``ppd`` and ``spd``."""
