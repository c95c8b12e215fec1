"""A pytest plugin: ``-p profiling.gpu.shard --shard 2/8`` runs the third of eight equal shares.

Processes side by side need no plugin from elsewhere, and one that loses the GPU takes only its own
share with it. A share's tests come in an order that is mixed but always the same, so that one which
runs out of time has seen something of everything.
"""

from __future__ import annotations

import hashlib

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", default="0/1", help="which share of the tests, as 2/8")


@pytest.hookimpl(trylast=True)  # after -m has had its choice
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which, count = map(int, config.getoption("--shard").split("/"))
    items.sort(key=lambda item: hashlib.sha256(item.nodeid.encode()).digest())
    kept, others = items[which::count], [*items]
    del others[which::count]
    config.hook.pytest_deselected(items=others)
    items[:] = kept
