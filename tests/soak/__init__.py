"""Long runs, outside CI: ``make soak`` runs all of them, ``make soak SOAK=name`` one. Figures go to ``docs/soak.json``."""
