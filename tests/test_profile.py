"""Profiles: names, times by fake clocks, floors by hand, and what is left behind."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex

import gpucnn
from gpucnn import plots, profiler
from gpucnn.backends import use_backend
from gpucnn.plots import style
from gpucnn.profiler import Pass, Profile, Row, clocks, floors
from gpucnn.profiler.floors import Peaks, Work

PEAKS = Peaks(gflops=2.0, gbps=4.0)


class Clock:
    """Stands still but for 1 us after each mark, and for what the layers add."""

    def __init__(self) -> None:
        self.now, self.is_done = 0.0, False

    def mark(self) -> float:
        self.now += 1
        return self.now - 1

    def finish(self) -> None:
        self.is_done = True

    def microseconds(self, start: float, end: float) -> float:
        assert self.is_done
        return end - start


class Slow(gpucnn.ReLU):
    """Takes ``us`` microseconds forward, the next of them each time, and ten more backward."""

    def __init__(self, clock: Clock, *us: int, **options) -> None:
        super().__init__(**options)
        self.clock, self.us, self.calls = clock, us, 0

    def __deepcopy__(self, memo: dict) -> "Slow":
        twin = Slow(self.clock, *self.us, name=self.name)
        twin.build(self.input_shape)
        memo[id(self)] = twin
        return twin

    def _forward(self, x, training):
        self.taken = self.us[self.calls % len(self.us)]
        self.calls += 1
        self.clock.now += self.taken
        return super()._forward(x, training)

    def _backward(self, dy, y):
        self.clock.now += self.taken + 10
        return super()._backward(dy, y)


@pytest.fixture(autouse=True)
def on_numpy():
    gpucnn.set_seed(0)
    with use_backend("numpy"):
        yield


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiler, "clock_of", lambda backend: clock)
    monkeypatch.setattr(floors, "measure", lambda *_: PEAKS)
    return clock


def profiled(layers: list, input_shape: tuple[int, ...], **options) -> Profile:
    model = gpucnn.Sequential(layers, input_shape=input_shape, name="net")
    x = np.random.default_rng(0).standard_normal((2, *input_shape)).astype(model.dtype)
    return gpucnn.profile(model, x, **{"steps": 1, "warm_up": 1, **options})


# ---- times ---------------------------------------------------------------------------------------


def test_the_parts_of_a_step_add_up_to_it(clock):
    block = gpucnn.Residual([Slow(clock, 7, name="a"), Slow(clock, 9, name="b")], name="block")
    layers = [Slow(clock, 50, name="first"), block, gpucnn.Dense(3, name="head")]
    found = profiled(layers, (5,), steps=3)
    # each range is 1 us longer than what is in it, for its first mark
    assert [(row.path, row.forward.us, row.backward.us) for row in found.rows] == [
        (("first",), 51, 61),
        (("block",), 8 + 10 + 3, 18 + 20 + 3),
        (("block", "a"), 8, 18),
        (("block", "b"), 10, 20),
        (("head",), 1, 1),
    ]
    assert [row.is_network for row in found.rows] == [False, True, False, False, False]
    assert found.loss.us == found.optimizer.us == 1
    # in no layer: a mark at each end of the step, of the network twice, of the block twice, and
    # the last mark of each of the ten ranges that hold no other
    assert found.between_us == 1 + 2 * 2 + 2 * 2 + 10
    assert found.steps_us == [found.step_us] * 3
    assert found.step_us == 112 + 26 + 30 + 2 + 2 + 19


def test_a_time_is_the_median_of_the_steps_and_the_timeline_has_no_holes(clock):
    # two calls come before: the one that says the output's shape, and the survey; then the warm-up
    layer = Slow(clock, 0, 0, 0, 5, 5, 1000, 5, 8, name="slow")
    found = profiled([layer, gpucnn.Dense(3)], (5,), steps=5)
    slow, dense = found.rows
    assert (slow.forward.us, slow.backward.us) == (6, 16)
    assert max(found.steps_us) > 2000 > 60 > found.step_us
    assert slow.forward.start_us + slow.forward.us + 1 == dense.forward.start_us
    assert dense.forward.start_us < found.loss.start_us < dense.backward.start_us
    assert found.optimizer.start_us + found.optimizer.us + 1 == found.step_us


def test_stages_are_named_as_they_run(clock):
    layers = [gpucnn.Conv2D(3, 3), gpucnn.BatchNorm(), gpucnn.ReLU(), gpucnn.Flatten()]
    layers += [gpucnn.Dense(4)]
    training = profiled(layers, (6, 6, 1))
    assert [row.name for row in training.rows] == [
        "conv2d+batch_norm+re_lu", "flatten", "dense",
    ]  # fmt: skip
    assert [row.output_shape for row in training.rows] == [(2, 4, 4, 3), (2, 48), (2, 4)]
    assert [row.family for row in training.rows] == ["convolution", "other", "dense"]
    layers = [type(layer).from_config(layer.config()) for layer in layers]
    answer = profiled(layers, (6, 6, 1), training=False)
    assert [row.name for row in answer.rows] == ["conv2d+batch_norm+re_lu", "flatten", "dense"]
    assert all(row.backward is None for row in answer.rows)
    assert answer.loss is answer.optimizer is None and not answer.training
    assert answer.steps_us == [answer.step_us]


def test_the_model_is_left_as_it_was(clock):
    model = gpucnn.Sequential([gpucnn.Conv2D(3, 3), gpucnn.BatchNorm()], input_shape=(5, 5, 1))
    before = model.state_dict()
    x = np.ones((2, 5, 5, 1), np.float32)
    gpucnn.profile(model, x, np.zeros((2, 3, 3, 3)), loss="mse", optimizer="sgd", steps=2)
    assert all((model.state_dict()[path] == before[path]).all() for path in before)
    unbuilt = gpucnn.Sequential([gpucnn.Dense(2)])
    gpucnn.profile(unbuilt, np.ones((2, 5), np.float32), steps=1)
    assert not unbuilt.built


def test_a_graph_of_two_inputs_answers(clock):
    a, b = gpucnn.Input((4, 4, 2), name="a"), gpucnn.Input((4, 4, 2), name="b")
    model = gpucnn.Graph([a, b], gpucnn.Add()([gpucnn.Conv2D(2, 1)(a), b]))
    x = [np.ones((3, 4, 4, 2), np.float32)] * 2
    found = gpucnn.profile(model, x, training=False, steps=1)
    assert [row.name for row in found.rows] == ["conv2d"]  # with the sum
    with pytest.raises(TypeError, match="one input and one output"):
        gpucnn.profile(model, x)


def test_a_layer_of_layers_is_a_network(clock):
    class Twice(gpucnn.ReLU):
        inner = None

        def _forward(self, x, training):
            self.inner = self.inner or Slow(clock, 4, name="inner")
            for _ in range(2):
                x = self.inner.forward(x)
            return super()._forward(x, training)

    found = profiled([Twice(name="outer"), gpucnn.Dense(2)], (5,), steps=2)
    outer, inner, _ = found.rows
    assert [row.is_network for row in found.rows] == [True, False, False]
    assert inner.path == ("outer", "inner") and inner.forward.us == 2 * 5
    assert found.floor_us(outer) == 0 and found.floor_us(inner) > 0
    assert found.steps_us == [found.step_us] * 2


def test_a_step_on_every_backend(backend, monkeypatch):
    monkeypatch.setattr(floors, "COPIED", 2**20)
    layers = [gpucnn.Conv2D(4, 3), gpucnn.ReLU(), gpucnn.MaxPool2D(2), gpucnn.Flatten()]
    layers += [gpucnn.Dense(3)]
    found = profiled(layers, (8, 8, 3), steps=2)
    assert found.backend == backend.name
    names = [row.name for row in found.rows]
    assert names[0].startswith("conv2d") and names[-2:] == ["flatten", "dense"]
    assert all(one.us > 0 for row in found.rows for one in row.passes)
    parts = [row.us for row in found.rows] + [found.loss.us, found.optimizer.us, found.between_us]
    assert min(parts) > 0 and sum(parts) == pytest.approx(found.step_us)
    conv, *_, dense = found.rows
    assert min(found.floor_us(conv), found.floor_us(dense)) > 0
    x, w, b, y = 384, 108, 4, 288 // (4 if "max_pool2d" in conv.name else 1)
    index = y if "max_pool2d" in conv.name else 0
    assert conv.forward.work == Work(2 * 288 * 27, 4 * (x + w + b + y) + index)


class FakeCuda:
    """Events that know their time, in milliseconds, once the device has been waited for."""

    def __init__(self) -> None:
        self.now, self.is_done, self.waited = 0, False, 0
        cuda = self

        class Event:
            def record(self) -> None:
                cuda.now += 1
                cuda.is_done, self.at = False, cuda.now

        self.Event = Event

    def Device(self) -> SimpleNamespace:
        return SimpleNamespace(synchronize=self.wait)

    def wait(self) -> None:
        self.is_done, self.waited = True, self.waited + 1

    def get_elapsed_time(self, start, end) -> float:
        assert self.is_done
        return end.at - start.at


def test_on_a_gpu_events_are_waited_for_once(clock, monkeypatch):
    cuda = FakeCuda()
    gpu = SimpleNamespace(xp=SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(profiler, "clock_of", lambda backend: clocks.clock_of(gpu))
    found = profiled([gpucnn.Dense(4), gpucnn.Dense(3)], (5,), steps=4)
    assert cuda.waited == 1
    assert [row.forward.us for row in found.rows] == [1000, 1000]
    assert found.steps_us == [found.step_us] * 4 == [17_000] * 4


# ---- floors --------------------------------------------------------------------------------------


def test_the_floors_of_a_convolution_and_a_dense_layer(clock):
    found = profiled([gpucnn.Conv2D(4, 3), gpucnn.Flatten(), gpucnn.Dense(5)], (8, 8, 3))
    conv, flatten, dense = found.rows
    # x (2, 8, 8, 3), w (4, 3, 3, 3), b (4,), y (2, 6, 6, 4)
    x, w, b, y = 384, 108, 4, 288
    assert conv.multiply_adds == y * 27
    assert conv.forward.work == Work(2 * y * 27, 4 * (x + w + b + y))
    assert conv.backward.work == Work(2 * y * 27, 4 * (y + x + w + b))  # of a picture no dx
    # the NumPy backend has maps in an order of its own: they are copied forward, not back
    assert (flatten.forward.work, flatten.backward.work) == (Work(0, 4 * 2 * y), Work())
    # x (2, 144), w (5, 144), b (5,), y (2, 5)
    x, w, b, y = 288, 720, 5, 10
    assert dense.multiply_adds == 288 * 5
    assert dense.forward.work == Work(2 * 288 * 5, 4 * (x + w + b + y))
    assert dense.backward.work == Work(4 * 288 * 5, 4 * (y + x + w + x + w + b))
    # 2 operations or 4 bytes a nanosecond
    assert found.floor_us(conv) == pytest.approx(2 * 288 * 27 / 1e3)
    assert found.bound(conv) == "arithmetic" and found.bound(flatten) == "memory"
    assert found.floor_us(dense) == pytest.approx((288 * 5 + 2 * 288 * 5) / 1e3)
    assert conv.gflops == pytest.approx(4 * 288 * 27 / conv.us / 1e3)


def work_of(layers: list, input_shape: tuple[int, ...], place: int = 0) -> list[Work]:
    row = profiled(layers, input_shape).rows[place]
    return [one.work for one in row.passes]


def test_a_stride_beyond_the_window_leaves_pixels_unread(clock):
    forward, backward = work_of([gpucnn.Conv2D(2, 1, strides=2, use_bias=False)], (8, 8, 3))
    x, w, y = 2 * 16 * 3, 6, 2 * 16 * 2
    assert forward == Work(2 * y * 3, 4 * (x + w + y))
    assert backward == Work(2 * y * 3, 4 * (y + x + w))


def test_a_view_is_no_work(clock):
    layers = [gpucnn.Flatten(), gpucnn.Dense(2)]
    assert work_of(layers, (6, 6, 3)) == [Work(), Work()]


def test_a_pool_keeps_an_index_of_a_byte(clock):
    forward, backward = work_of([gpucnn.MaxPool2D(2)], (6, 6, 3))
    assert forward == backward == Work(0, 4 * (216 + 54) + 54)


def test_each_gradient_behind_a_pool_meets_one_window(clock, monkeypatch):
    layers = [gpucnn.Conv2D(4, 3), gpucnn.ReLU(), gpucnn.MaxPool2D(2), gpucnn.Flatten()]
    forward, backward = work_of(layers, (8, 8, 3))
    x, w, b, y = 384, 108, 4, 2 * 9 * 4
    assert forward == Work(2 * 288 * 27, 4 * (x + w + b + y) + y)
    assert backward == Work(2 * y * 27, 4 * (y + y + x + w + b) + y)


def test_a_sum_reads_the_residual(clock):
    layers = [gpucnn.Conv2D(3, 1, use_bias=False), gpucnn.BatchNorm()]
    block = gpucnn.Residual(layers, activation="relu")
    forward, backward = work_of([block], (8, 8, 3), place=1)
    x, c, w = 2 * 64 * 3, 3, 9
    # x, which is the residual, too, the norm's x and y; w, gamma, beta and both statistics, and
    # those of the batch, which are kept
    assert forward == Work(2 * x * 3, 4 * (3 * x + w + 6 * c))
    # dy, x, the norm's and y; the batch's statistics and w, gamma, beta, and their gradients; dx
    # and the residual's
    assert backward == Work(4 * x * 3, 4 * (6 * x + 2 * w + 6 * c))


def test_complex_numbers_take_four_multiplications(clock):
    model = gpucnn.Sequential([gpucnn.Dense(3)], input_shape=(5,), dtype="complex64")
    x = np.ones((2, 5), np.complex64)
    (row,) = gpucnn.profile(model, x, training=False, steps=1).rows
    assert row.multiply_adds == 30
    assert row.forward.work == Work(8 * 30, 8 * (10 + 15 + 3 + 6))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "complex64"])
def test_peaks_are_measured(monkeypatch, dtype):
    monkeypatch.setattr(floors, "COPIED", 2**20)
    monkeypatch.setattr(floors, "SIZE", 64)
    backend = gpucnn.get_backend("numpy")
    peaks = floors.measure(backend, np.dtype(dtype), clocks.HostClock())
    assert peaks.gflops > 0.01 and peaks.gbps > 0.01


def test_peaks_of_a_gpu(monkeypatch):
    """A product of 1000 us and a copy of as long, by the fake's events."""
    monkeypatch.setattr(floors, "COPIED", 2**20)
    monkeypatch.setattr(floors, "DEVICE_SIZES", {4: 32, 2: 64})
    backend = gpucnn.get_backend("numpy")
    xp = SimpleNamespace(**{**vars(np), "cuda": FakeCuda()})
    gpu = SimpleNamespace(xp=xp, running=backend.running)
    for dtype, size in (("float32", 32), ("float16", 64)):
        peaks = floors.measure(gpu, np.dtype(dtype), clocks.clock_of(gpu))
        assert peaks.gflops == pytest.approx(2 * size**3 / 1e6)
        assert peaks.gbps == pytest.approx(2 * 2**20 / 1e6)


# ---- what is left behind -------------------------------------------------------------------------


def by_hand() -> Profile:
    shape = 8, 6, 6, 4
    conv = Pass(5.0, 40.0, Work(20_000, 8_000)), Pass(125.0, 60.0, Work(40_000, 9_000))
    block = Pass(50.0, 30.0, Work()), Pass(95.0, 25.0, Work())
    relu = Pass(52.0, 10.0, Work(0, 8_000)), Pass(100.0, 10.0, Work(0, 12_000))
    rows = [
        Row(("conv",), "convolution", shape, 7_776_000, *conv),
        Row(("block",), "network", shape, 0, *block),
        Row(("block", "relu"), "activation", shape, 0, *relu),
    ]
    loss, optimizer = Pass(85.0, 5.0, Work()), Pass(180.0, 20.0, Work())
    return Profile(
        "net",
        (8, 8, 3),
        "float32",
        "numpy",
        rows,
        loss,
        optimizer,
        55.0,
        200.0,
        [190.0, 210.0],
        PEAKS,
    )


def test_the_table():
    assert [" ".join(line.split()) for line in str(by_hand()).splitlines()[1:]] == [
        "conv (8, 6, 6, 4) 40.0 60.0 50.0% 7.78 M 0.6 30.0 3.3 arithmetic",
        "block (8, 6, 6, 4) 30.0 25.0 27.5%",
        "relu (8, 6, 6, 4) 10.0 10.0 10.0% 5.0 4.0 memory",
        "loss 5.0 2.5%",
        "optimizer 20.0 10.0%",
        "between layers 55.0 27.5%",
        "step 200 100.0% 7.78 M 0.3 35.0 5.7",
    ]
    assert "\n  relu " in str(by_hand())


def test_the_numbers_as_json(tmp_path):
    read = json.loads(by_hand().save(tmp_path / "new" / "profile.json").read_text())
    assert read["step_us"] == 200 and read["steps_us"] == [190, 210]
    assert read["peaks"] == {"gflops": 2, "gbps": 4}
    assert read["optimizer"] == {"start_us": 180, "us": 20}
    conv, block, relu = read["rows"]
    assert conv["forward"] == {
        "start_us": 5, "us": 40, "operations": 20_000, "bytes": 8_000, "floor_us": 10,
        "bound": "arithmetic",
    }  # fmt: skip
    assert relu["path"] == "block/relu" and relu["floor_us"] == 5 and relu["bound"] == "memory"
    assert block["share"] == 0.275 and block["bound"] is None


def test_the_timeline_shows_times_and_floors():
    figure = plots.timeline(by_hand())
    assert figure.get_suptitle() == "net: a training step of 8 in 200 us, float32"
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "conv", "block/relu", "loss", "optimizer",
    ]  # fmt: skip
    bars = [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor())) for bar in axes.patches]
    strong = style.BLUE, style.AMBER
    full = [(x, width) for x, width, colour in bars if colour in strong]
    assert full == [(5, 10), (125, 20), (52, 2), (100, 3)]
    whole = [(x, width) for x, width, colour in bars if colour not in strong and width]
    assert whole == [(5, 40), (125, 60), (52, 10), (100, 10), (85, 5), (180, 20)]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:4] == ["forward", "backward", "us", "x floor"]
    assert texts[4:] == ["100", "3.3", "20", "4.0", "5", "", "20", ""]


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "profile: steps must be an integer of at least 1"),
        ({"warm_up": 0}, "profile: warm_up must be an integer of at least 1"),
        ({"y": [0, 9]}, "CrossEntropy: labels must be 0 to 2"),
        ({"y": [0, 1, 2]}, "CrossEntropy: the target must hold integer labels of shape"),
        ({"loss": "crossentropy"}, "Received: .*crossentropy"),
        ({"x": np.ones((2, 7), np.float32)}, "expects an input"),
    ],
)
def test_mistakes(options, message):
    model = gpucnn.Sequential([gpucnn.Dense(3)], input_shape=(5,))
    with pytest.raises(ValueError, match=message):
        gpucnn.profile(model, **{"x": np.ones((2, 5), np.float32), **options})
    with pytest.raises(TypeError, match="profile: model must be a network"):
        gpucnn.profile(gpucnn.Dense(3), np.ones((2, 5), np.float32))


def test_steps_that_differ_are_refused(clock):
    class Fickle(gpucnn.Residual):
        calls = 0

        def _forward(self, x, training):
            Fickle.calls += 1
            if Fickle.calls % 2:
                self.layers[0].forward(x)
            return super()._forward(x, training)

    with pytest.raises(RuntimeError, match="every step must run through the same layers"):
        profiled([Fickle([gpucnn.ReLU()]), gpucnn.Dense(2)], (5,), steps=2)
