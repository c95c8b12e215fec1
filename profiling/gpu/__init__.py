"""One command that tests, checks and measures gpucnn on a GPU: ``python -m profiling.gpu``.

__main__   the command: which parts, how long, what was left out
options    its options
machine    what this machine has
jobs       processes with time limits
parts      the correctness parts as jobs: GPU tests, ptx.cuh, compute-sanitizer
shard      a pytest plugin: one share of the tests
ptx        every case of tests/ptx_cases.py, on the GPU or in the emulator
sanitized  every operation once, on small odd shapes, with no need for pytest or PyTorch
networks   the layers of known networks, from their definitions
cases      the benchmark set: what is measured, the most telling first
ours       each operation as a call of this library; peers, jax_peer: of others
launches   which kernels a backend launches
arrays     their inputs, drawn once and shared by both
check      both against float64; accuracy is the measure
timing     both in CUDA graphs over rotating buffers, in turn
floors     the least time that arithmetic and memory allow; rates measures those two
bench      measures the set, row by row
steps      whole training steps and answers of networks, a folder of its own
airbench   a program of its own: time to 94 % on CIFAR-10, beside airbench_torch
report     a results file as Markdown; figures draws it
"""
