"""Run CUDA kernel files on the CPU: the same .cu text, NumPy arrays instead of device memory.

`Module` compiles a kernel file with g++ (12 or later) against a stand-in for CUDA (runtime/), and
its kernels are called like `cupy.RawKernel`:

    module = Module("kernels/pool.cu", ["pool_forward_max_f32"], {"ELEMENT": "F32"}, mode="check")
    kernel = module.get_function("pool_forward_max_f32")
    kernel((blocks,), (128,), (x, y, np.int32(y.size)))

How it works. A block runs on one operating-system thread and its CUDA threads are fibers that
switch at every barrier and warp collective. `__shared__` means `thread_local`, so the module's
thread-local segment *is* the block's shared memory: filled with NaN before each block, bounded
and shadowed. The blocks of a cluster run in turns on one thread; a shared address means the same
place in each, and what other blocks have there is reached by multicast and by arrivals at mbarriers
alone. Asynchronous copies and wgmma land as late as the programming model allows, so a forgotten
wait shows as wrong data.

Three builds:

    fast    -O2; 300-400 M multiply-adds a second
    check   every access to memory is checked for bounds, alignment, initialisation, copies still
            pending and data races, in a block, in a cluster and between blocks, and that a
            dependent launch waits for the kernels before; undefined behaviour is an error; locals
            that are not set hold garbage. 40-250 M/s
    asan    AddressSanitizer and UBSan; Python must be started with LD_PRELOAD=libasan.so

What a kernel file must keep to: inline PTX only in kernels/ptx.cuh; kernels in the global
namespace; at most one dynamic array, `extern __shared__ __align__(16) unsigned char smem[];`;
32-bit shared addresses only of that array; true masks in the *_sync functions; no waiting for
other blocks.

What it cannot see: errors inside the real PTX, the rounding of tensor cores, contraction to FMA,
registers, occupancy, most bank conflicts. Those need a GPU or NVRTC. Grid-wide synchronisation does
not exist here; clusters lie along x.

Environment: GPUCNN_EMULATOR_CACHE (libraries; default ~/.cache/gpucnn/emulator),
GPUCNN_EMULATOR_THREADS (blocks at a time in `fast`; default 1), GPUCNN_EMULATOR_CXX (default g++).
"""

from .build import CompileError
from .launch import Kernel, KernelError, Module
from .tensor_map import tensor_map

__all__ = ["CompileError", "Kernel", "KernelError", "Module", "tensor_map"]
