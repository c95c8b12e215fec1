// The runtime as one translation unit: compiled in a third of the time, and the checker's hot path
// is inlined into its hooks.
#include "fibers.cpp"
#include "scheduler.cpp"
#include "collectives.cpp"
#include "checker.cpp"
#include "hooks.cpp"
#include "numerics.cpp"
#include "async_copies.cpp"
#include "tensor_cores.cpp"
#include "launch.cpp"
