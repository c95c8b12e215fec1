// How a kernel follows the one before (from sm_90 on: programmatic dependent launch).
//
// Ordinarily a kernel's blocks get their places when the last block of the kernel before has ended and its writes have
// reached memory: the GPU stands still for a microsecond or two. A dependent launch (gpucnn/backends/cuda/
// dependent_launch.py) lets them in as soon as every block of the kernel before has begun; they make their shared
// memory ready and wait. Every __global__ function therefore begins with after_kernels_before(), and all of a stream's
// order is kept:
//
// - Reads follow writes, and writes follow reads: no thread touches global memory before its wait, which ends when the
//   kernel before has, all of it, and what that wrote is visible. A wait is its thread's own: a producer must wait
//   before it starts TMA, and a consumer before it stores.
// - So it is for kernels further back. The wait is for the kernel before alone, but that one cannot have ended without
//   its own wait, hence not before the one in front of it had; and so on. Therefore no thread returns above the wait,
//   though it may have nothing to do: a kernel of such threads would be over too early, and let the next one past.
// - What is waited for can run: blocks come in only when every block of the kernel before has a place, those of a
//   persistent kernel too. However many kernels wait in a row, the foremost has all the places that it needs.
// - What knows nothing of this, CuPy's kernels and copies, is launched in the ordinary way: it begins when all before
//   it is over. Behind such a kernel a dependent one comes in when the last block has ended, and waits for its writes.
//   Another library's dependent launch behind one of our kernels comes in early as well, and waits as it must anyway.
//
// What is not global memory may be used above the wait: shared memory, and parameters, tensor maps among them. To the
// compiler a load through `const T* __restrict__` gives the same at any time, so it could move one up; the tests look
// that it has not (tests/test_sass.py).
//
// A launch that is not dependent has nothing to wait for, and older architectures have no such instructions.
#pragma once
#include "ptx.cuh"

// Let the next kernel's blocks in, then wait until the kernels before are over.
__device__ __forceinline__ void after_kernels_before() {
#if __CUDA_ARCH__ >= 900
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
#endif
}
