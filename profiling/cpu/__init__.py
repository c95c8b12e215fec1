"""The CPU benchmark of ``gpucnn.bench`` in full: kept in a file, reported, put into the README."""
