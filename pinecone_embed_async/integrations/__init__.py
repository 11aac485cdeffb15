"""At home where its users are: each adapter is a module of its own, and imports what it adapts to."""
