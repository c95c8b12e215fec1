"""One command that tests, checks and measures gpucnn on a GPU: ``python -m profiling.gpu``.

    __main__   the command: which parts, how long, what was left out
    machine    what this machine has
    jobs       processes with time limits
    parts      the correctness parts as jobs: GPU tests, ptx.cuh, compute-sanitizer
    shard      a pytest plugin: one share of the tests
    sanitized  every operation once, on small odd shapes, with no need for pytest or PyTorch
    networks   the layers of known networks, from their definitions
    cases      the benchmark set: what is measured, the most telling first
    ours peers each operation as a call on arrays: this library's, PyTorch's, JAX's
    errors     both against float64
    timing     both in CUDA graphs over rotating buffers, in turn
    floors     the least time that arithmetic and memory allow
    bench      measures the set, row by row
    report     a results file as Markdown; figures draws it
"""
