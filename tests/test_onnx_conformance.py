"""ONNX's own test cases, on arrays and, where they are, as networks; about ten seconds of CPU."""

from collections import Counter

import numpy as np
import pytest

from gpucnn.backends import use_backend
from gpucnn.onnx import conformance
from gpucnn.onnx.operators import OPERATORS

CASES = {f"{case.kind}-{case.name}": case for case in conformance.cases()}
RUN = [name for name, case in CASES.items() if conformance.reason(case) is None]


@pytest.fixture(autouse=True)
def numpy_backend():
    with use_backend("numpy"):
        yield


@pytest.mark.parametrize("name", RUN)
def test_a_case(name):
    conformance.check(CASES[name])
    conformance.check_network(CASES[name])


def test_the_counts():
    """What is left out is known: no case slips away unseen."""
    assert len(CASES) == 2024  # of the version of onnx that the test extra names
    assert len(RUN) == 1359
    assert len([name for name in RUN if name.startswith("pytorch-converted")]) == 82
    assert len([name for name in RUN if name.startswith("pytorch-operator")]) == 35


def test_networks_among_the_cases():
    """As many as docs/onnx.md says: what is refused from now on is not counted any more."""
    networks = Counter(CASES[n].kind for n in RUN if conformance.check_network(CASES[n]))
    assert networks == {
        "node": 443, "pytorch-converted": 79, "pytorch-operator": 23, "simple": 3,
    }  # fmt: skip


def test_every_operator_has_a_case():
    tested = {node.op_type for name in RUN for node in conformance.nodes(CASES[name].model.graph)}
    assert set(OPERATORS) - tested == {"GlobalLpPool"}  # see test_a_whole_maps_norm


def test_a_wrong_number_fails():
    case = CASES["node-test_relu"]
    _, outputs = case.data[0]
    with pytest.raises(AssertionError):
        conformance.compare(case, [outputs[0] + np.float32(0.01)], outputs)


def test_the_program_prints_the_counts(monkeypatch, capsys):
    few = ["node-test_relu", "node-test_lstm_defaults", "pytorch-operator-test_operator_conv"]
    monkeypatch.setattr(conformance, "cases", lambda: [CASES[name] for name in few])
    conformance.main(["--all"])
    printed = capsys.readouterr().out
    assert "node                          2      1                  1" in printed
    assert "      1  recurrent networks\n           test_lstm_defaults\n" in printed
    assert "failed: 0" in printed
