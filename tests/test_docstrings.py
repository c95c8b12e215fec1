"""The examples in docstrings run and give what they show."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import gpucnn.cli
import gpucnn.plots
from gpucnn.backends import use_backend

PACKAGES = (gpucnn.cli, gpucnn.functional, gpucnn.layers, gpucnn.plots)
ALONE = (
    "arguments", "callbacks", "checkpoint", "configured", "functional", "history", "losses",
    "metrics", "models", "optimizers", "plots", "progress", "schedules", "shapes", "trainer",
)  # fmt: skip
MODULES = [f"gpucnn.{name}" for name in ALONE] + [
    f"{package.__name__}.{module.name}"
    for package in PACKAGES
    for module in pkgutil.iter_modules(package.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    names = {"np": np, **vars(gpucnn.layers), **vars(gpucnn.functional)}
    with use_backend("numpy"):
        result = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert result.failed == 0
