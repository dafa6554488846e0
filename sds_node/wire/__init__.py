"""How nodes talk: authenticated, encrypted, many streams over one connection, each with back-pressure."""
