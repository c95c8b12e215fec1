"""Measurements of gpucnn: annotated runs for profilers, benchmarks against peers, their results."""
