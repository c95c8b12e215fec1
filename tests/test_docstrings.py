"""The examples in docstrings run and give what they show."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import gpucnn
from gpucnn.backends import use_backend

MODULES = ["gpucnn", *(m.name for m in pkgutil.walk_packages(gpucnn.__path__, "gpucnn."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    names = {"np": np, **vars(gpucnn.layers), **vars(gpucnn.functional)}
    with use_backend("numpy"):
        result = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert result.failed == 0
