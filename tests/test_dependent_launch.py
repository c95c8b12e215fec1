"""Dependent launches: the rule that every kernel keeps, when a launch is one, and what it says."""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn.backends import get_backend
from gpucnn.backends.cuda import (
    CudaBackend,
    CupyLauncher,
    cupy_backend,
    dependent_launch,
    tensor_map,
)
from gpucnn.backends.cuda.compiler import _handle, header_hash, kernel_folder
from gpucnn.backends.cuda.graphs import CupyGraphs
from gpucnn.backends.cuda.kernel import Kernel
from gpucnn.backends.cuda.tensor_map import TensorMap, Tiles

# ---- the rule ------------------------------------------------------------------------------------

KERNELS = [
    pytest.param(body, id=f"{path.name}: {name}")
    for path in sorted(kernel_folder().glob("*.cu*"))
    for name, body in re.findall(
        r"__global__.*?NAME\((\w+)\)\(.*?\)\s*\{\n(.*?)^\}",
        path.read_text(),
        re.DOTALL | re.MULTILINE,
    )
]
WAIT = "    after_kernels_before();\n"


@pytest.mark.parametrize("body", KERNELS)
def test_a_kernel_begins_with_the_wait(body):
    above, wait, below = body.partition(WAIT)
    assert wait and WAIT not in below
    if above:  # on wgmma a block makes its barriers ready first; these are in shared memory
        assert re.search(r"^    start\([\w, ]+\);\n$", above, re.MULTILINE)
        assert not re.search(r"\b(return|if|for|bias|partial|moments|residual|dw|dx)\b", above)


def test_every_kernel_is_among_them():
    texts = [path.read_text() for path in kernel_folder().glob("*.cu*")]
    assert len(KERNELS) == sum(
        len(re.findall(r"^extern.*__global__", t, re.MULTILINE)) for t in texts
    )


# ---- when a launch is one, by a driver that pretends ---------------------------------------------

KERNEL = Kernel("a.cu", "a", (), (("SHARED_BYTES", "70000"),))
HANDLE, STREAM, PLACE = 0x7F0000001234, 0x7F0000005678, 0x7F0000009000
MEMORY = bytes(range(128))  # what the driver makes of a tensor map
KERNEL_NODE, COPY_NODE = 0, 1


def in_c(function: Callable[..., int], *types: Any) -> Any:
    """Return a function as a library has it, which does not know the types of its parameters."""
    callback = ctypes.CFUNCTYPE(ctypes.c_int, *types)(function)
    bare = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.cast(callback, ctypes.c_void_p).value)
    bare.callback = callback  # lives as long
    return bare


IS_SUPPORTED = dependent_launch.is_supported.__wrapped__  # asked once a driver


class Driver:
    """The driver's library: a stream that is captured, or not, and what is launched."""

    def __init__(
        self, sizes: tuple[int, ...] = (), *, status: int = 1, nodes=(KERNEL_NODE,)
    ) -> None:
        self.sizes, self.status, self.nodes = sizes, status, nodes
        self.launches: list[SimpleNamespace] = []
        self.answer = 0
        address = ctypes.c_void_p
        self.cuLaunchKernelEx = in_c(self.launch, *[address] * 4)
        self.cuStreamGetCaptureInfo_v3 = in_c(self.capture_info, *[address] * 7)
        self.cuGraphNodeGetType = in_c(self.node_type, *[address] * 2)
        self.cuTensorMapEncodeTiled = in_c(self.encode, address)

    def launch(self, config: int, function: int, parameters: int, extra: int | None) -> int:
        *sizes, shared, stream, attributes, count = struct.unpack(
            "7I4xQQI4x", ctypes.string_at(config, 56)
        )
        addresses = struct.unpack(
            f"{len(self.sizes)}Q", ctypes.string_at(parameters, 8 * len(self.sizes))
        )
        self.launches.append(
            SimpleNamespace(
                grid=sizes[:3], block=sizes[3:], shared=shared, stream=stream, count=count,
                attribute=struct.unpack("=i4xi60s", ctypes.string_at(attributes, 72)),
                function=function, extra=extra,
                values=[ctypes.string_at(*of) for of in zip(addresses, self.sizes, strict=True)],
            )
        )  # fmt: skip
        return self.answer

    def capture_info(self, stream, status, capture, graph, nodes, edges, count) -> int:
        assert stream == STREAM and None not in (capture, graph, edges)
        self.listed = (ctypes.c_void_p * len(self.nodes))(*range(PLACE, PLACE + len(self.nodes)))
        ctypes.c_int.from_address(status).value = self.status
        ctypes.c_size_t.from_address(count).value = len(self.nodes)
        ctypes.c_void_p.from_address(nodes).value = ctypes.addressof(self.listed)
        return 0

    def node_type(self, node: int, kind: int) -> int:
        ctypes.c_int.from_address(kind).value = self.nodes[node - PLACE]
        return 0

    def encode(self, place: int) -> int:
        ctypes.memmove(place, MEMORY, len(MEMORY))
        return 0


def use(monkeypatch: pytest.MonkeyPatch, driver: Any) -> Any:
    for module in (dependent_launch, tensor_map):
        monkeypatch.setattr(module, "driver", lambda: driver)
    monkeypatch.setattr(dependent_launch, "is_supported", cache(IS_SUPPORTED))
    return driver


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """CuPy with a current device and a current stream, though there is no GPU."""
    cupy = pytest.importorskip("cupy", reason="the launcher is CuPy's")
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 0)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: SimpleNamespace(ptr=STREAM))
    return cupy


class Function(SimpleNamespace):
    """What CuPy launches in the ordinary way."""

    kernel = SimpleNamespace(ptr=HANDLE)

    def __call__(self, *call: Any, shared_mem: int) -> None:
        self.calls.append((*call, shared_mem))


def launcher(dependent: bool = True, architecture: int = 90) -> tuple[CupyLauncher, Function]:
    made, function = CupyLauncher(dependent), Function(calls=[])
    made._architectures[0], made._functions[KERNEL, 0] = architecture, function
    return made, function


def test_a_dependent_launch_says_all_that_an_ordinary_one_does(monkeypatch, cupy):
    memory = cupy.cuda.UnownedMemory(PLACE, 4096, None, 0)
    array = cupy.ndarray((8, 16), np.float32, cupy.cuda.MemoryPointer(memory, 512))
    geometry = np.array([(1, 2**40, (3, 4, 5))], [("a", "i4"), ("b", "i8"), ("c", "i4", 3)])
    box = TensorMap(array, (16, 8), Tiles((16, 4)))
    made, function = launcher()
    driver = use(monkeypatch, Driver((8, 8, 4, 4, 8, 8, geometry.nbytes, 128)))
    CudaBackend(np, made).launch(
        KERNEL, (5, 7), 96, array, None, 3, 0.5, np.float64(0.1), np.int64(-(2**40)), geometry, box
    )
    (launch,) = driver.launches
    assert (launch.grid, launch.block) == ([5, 7, 1], [96, 1, 1])
    assert (launch.shared, launch.stream) == (70000, STREAM)
    assert (launch.function, launch.extra) == (HANDLE, None)
    assert (launch.count, launch.attribute) == (1, (6, 1, bytes(60)))  # stream serialization
    assert launch.values == [
        struct.pack("Q", PLACE + 512), bytes(8), struct.pack("i", 3), struct.pack("f", 0.5),
        struct.pack("d", 0.1), struct.pack("q", -(2**40)), geometry.tobytes(), MEMORY,
    ]  # fmt: skip
    assert not function.calls


@pytest.mark.parametrize(
    ("captured", "dependent"),
    [
        pytest.param({}, True, id="behind a kernel"),
        pytest.param({"status": 0, "nodes": ()}, False, id="not captured"),
        pytest.param({"status": 2}, False, id="of a capture that failed"),
        pytest.param({"nodes": ()}, False, id="the first"),
        pytest.param({"nodes": (COPY_NODE,)}, False, id="behind a copy"),
        pytest.param({"nodes": (KERNEL_NODE, KERNEL_NODE)}, False, id="behind two branches"),
    ],
)
def test_a_launch_is_dependent_behind_one_kernel(monkeypatch, cupy, captured, dependent):
    driver = use(monkeypatch, Driver(**captured))
    made, function = launcher()
    made.launch(KERNEL, (5,), (96,), ())
    assert len(driver.launches) == dependent
    assert function.calls == ([] if dependent else [((5,), (96,), (), 70000)])


@pytest.mark.parametrize("options", [{"dependent": False}, {"architecture": 80}])
def test_the_driver_is_not_asked_where_nothing_is_dependent(monkeypatch, cupy, options):
    use(monkeypatch, None)
    made, function = launcher(**options)
    made.launch(KERNEL, (5,), (96,), ())
    assert function.calls == [((5,), (96,), (), 70000)]


@pytest.mark.parametrize(("value", "dependent"), [(None, False), ("0", False), ("1", True)])
def test_the_environment_chooses(monkeypatch, cupy, value, dependent):
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 1)
    if value is None:
        monkeypatch.delenv("GPUCNN_DEPENDENT_LAUNCH", raising=False)
    else:
        monkeypatch.setenv("GPUCNN_DEPENDENT_LAUNCH", value)
    assert cupy_backend().launcher.dependent == dependent


def test_the_default_stream_is_never_captured(monkeypatch):
    use(monkeypatch, None)
    assert not dependent_launch.follows_a_kernel(0)


def test_a_driver_that_refuses_is_named(monkeypatch, cupy):
    made, function = launcher()
    driver = use(monkeypatch, Driver())
    driver.answer = 701
    with pytest.raises(RuntimeError, match=r"cuLaunchKernelEx failed\. Received: CUresult 701"):
        made.launch(KERNEL, (5,), (96,), ())
    assert not function.calls


def test_an_old_driver_launches_as_ever_and_it_is_said_once(monkeypatch, cupy):
    made, function = launcher()

    def version(place: int) -> int:
        ctypes.c_int.from_address(place).value = 12020
        return 0

    use(monkeypatch, SimpleNamespace(cuDriverGetVersion=in_c(version, ctypes.c_void_p)))
    with pytest.warns(RuntimeWarning, match=r"for CUDA 12\.3 or newer\. Received: one for 12\.2"):
        made.launch(KERNEL, (5,), (96,), ())
    made.launch(KERNEL, (5,), (96,), ())  # a second warning would be an error
    assert function.calls == [((5,), (96,), (), 70000)] * 2


# ---- on a GPU ------------------------------------------------------------------------------------

CHAIN = """
#include "ptx.cuh"
// Waits, but not for ever, until the next kernel has begun, and some time more.
extern "C" __global__ void first(volatile int* seen, int* y) {
    griddepcontrol_launch_dependents();
    long long begin = clock64();
    while (!*seen && clock64() - begin < 100000000) {}
    const int overlaps = *seen;
    begin = clock64();
    while (clock64() - begin < 1000000) {}
    *y = 1 + overlaps;
}
// Says that it has begun, above the wait as no kernel of the library may.
extern "C" __global__ void next(volatile int* seen, const int* y, int* z) {
    griddepcontrol_launch_dependents();
    *seen = 1;
    griddepcontrol_wait();
    *z = *(volatile const int*)y;
}"""


@pytest.fixture
def hopper() -> Iterator[CudaBackend]:
    try:
        backend = get_backend("cuda")
    except RuntimeError as error:
        pytest.skip(str(error))
    if backend.launcher.architecture < dependent_launch.FIRST_ARCHITECTURE:
        pytest.skip("dependent launches need sm_90")
    yield backend


@pytest.mark.gpu
@pytest.mark.parametrize("dependent", [True, False])
def test_kernels_begin_early_and_read_late(hopper, dependent):
    """The second kernel begins while the first is running; the third waits for both."""
    cupy, options = hopper.xp, ("-std=c++17", f"-I{kernel_folder()}")
    module = cupy.RawModule(code=f"// headers {header_hash()}\n{CHAIN}", options=options)
    first, following = (module.get_function(name) for name in ("first", "next"))
    handles = {function: _handle(function) for function in (first, following)}
    seen, y, z, last, ignored = (cupy.zeros(1, np.int32) for _ in range(5))

    def start(function: Any, *arguments: Any) -> None:
        stream = cupy.cuda.get_current_stream().ptr
        if dependent and dependent_launch.follows_a_kernel(stream):
            dependent_launch.launch(handles[function], (1,), (1,), 0, stream, arguments)
        else:
            function((1,), (1,), arguments)

    def chain() -> None:
        start(first, seen, y)
        start(following, seen, y, z)
        start(following, ignored, z, last)

    cupy.cuda.Device().synchronize()
    _, replay = CupyGraphs().capture(chain)
    replay()
    cupy.cuda.Device().synchronize()
    assert int(y[0]) == (2 if dependent else 1), "whether the second began in time"
    assert (int(z[0]), int(last[0])) == (int(y[0]), int(y[0]))
