"""The tests; helpers are imported as ``tests.reference``, ``tests.tolerance``, ``tests.cases``."""
