"""The examples in docstrings of layers and functions run and give what they show."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import gpucnn
from gpucnn.backends import use_backend

PACKAGES = (gpucnn.functional, gpucnn.layers)
MODULES = ["gpucnn.shapes", "gpucnn.arguments", "gpucnn.functional"] + [
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
