"""The benchmark on a CPU: this package's NumPy backend beside PyTorch's CPU and JAX's.

Each library runs in a process of its own (``worker``), told through pipes what to do. ``protocol``
times a case on all of them in turn and throws away what other programs disturbed; ``runs`` goes
through the cases and gives rows of results. ``gpucnn bench`` shows them, and in a checkout
``python -m profiling.cpu`` keeps them.

Nothing here is loaded but by the benchmark; PyTorch and JAX are used where they are installed.
"""
