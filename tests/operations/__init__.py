"""Each operation of each backend against the reference."""
