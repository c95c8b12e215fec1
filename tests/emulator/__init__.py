"""Run CUDA kernel files on the CPU: the same .cu text, NumPy arrays instead of device memory.

`Module` compiles a kernel file with g++ against a small stand-in for CUDA (runtime/) and its
kernels are called like `cupy.RawKernel`:

    module = Module("kernels/pool.cu", ["max_pool_f32"], {"DTYPE": "float"}, mode="check")
    kernel = module.get_function("max_pool_f32")
    kernel((blocks,), (128,), (x, y, np.int32(y.size)))

How it works. A block runs on one operating-system thread and its CUDA threads are fibers that
switch at every barrier and warp collective. `__shared__` means `thread_local`, so the module's
thread-local segment *is* the block's shared memory: filled with NaN before each block, bounded
and shadowed. Asynchronous copies and wgmma land as late as the programming model allows, so a
forgotten wait shows as wrong data.

mode    what it is                                                               speed
fast    -O2                                                      300-400 M multiply-adds/s
check   every memory access goes through our checker: bounds, alignment,    40-250 M/s
        initialisation, pending copies, data races; undefined behaviour
asan    AddressSanitizer and UBSan of g++ (Python must run with libasan preloaded)

It cannot see errors inside the real PTX of kernels/ptx.cuh, the rounding of tensor cores,
contraction to FMA, registers, occupancy or bank conflicts; those need a GPU or NVRTC.
Clusters, grid-wide synchronisation and 32-bit addresses of static shared memory do not exist.

Environment: GPUCNN_EMULATOR_CACHE (default ~/.cache/gpucnn/emulator), GPUCNN_EMULATOR_THREADS
(blocks that run at the same time in `fast`, default 1), GPUCNN_EMULATOR_CXX (default g++).
"""

from .build import CompileError
from .launch import Kernel, KernelError, Module
from .tensor_map import tensor_map

__all__ = ["CompileError", "Kernel", "KernelError", "Module", "tensor_map"]
