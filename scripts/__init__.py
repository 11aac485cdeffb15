"""What writes parts of the docs, and the smoke test of the wheel; each is a program of its own."""
