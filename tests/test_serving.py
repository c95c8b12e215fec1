"""Predictions inside programs with threads of their own, as a web server is one.

``test_interop_dask`` has those with processes of their own, too.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import gpucnn
from gpucnn.backends.numpy import workers

CLIENTS, REQUESTS = 6, 4


def classifier() -> gpucnn.Sequential:
    """A network whose convolutions are large enough to be shared among the workers."""
    model = gpucnn.Sequential(
        [
            gpucnn.Conv2D(16, 3, padding="same", activation="relu"),
            gpucnn.MaxPool2D(2),
            gpucnn.Conv2D(24, 3, padding="same", use_bias=False),
            gpucnn.BatchNorm(),
            gpucnn.ReLU(),
            gpucnn.GlobalAveragePool2D(),
            gpucnn.Dense(10),
        ]
    )
    model.build((28, 28, 1), backend="numpy")
    return model


def pictures(client: int) -> np.ndarray:
    return np.random.default_rng(client).standard_normal((5 + client, 28, 28, 1), np.float32)


def answer(model: gpucnn.Sequential, x: np.ndarray) -> np.ndarray:
    with gpucnn.use_backend("numpy"):
        return model.forward(x, training=False)


@pytest.fixture
def server() -> Iterator[tuple[int, gpucnn.Sequential]]:
    """A server's port and its network, one for all connections, which have a thread each."""
    model = classifier()

    class Predictions(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            x = np.frombuffer(body, np.float32).reshape(-1, 28, 28, 1)
            result = answer(model, x).tobytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(result)))
            self.end_headers()
            self.wfile.write(result)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Predictions) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield http_server.server_port, model
        http_server.shutdown()
        thread.join()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_web_server_answers_many_at_once(server, monkeypatch, threads):
    monkeypatch.setattr(workers, "thread_count", lambda: threads)
    monkeypatch.setattr(workers, "_workers", None)
    port, model = server

    def ask(client: int) -> list[bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        found = []
        for _ in range(REQUESTS):
            connection.request("POST", "/", pictures(client).tobytes())
            found.append(connection.getresponse().read())
        connection.close()
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(CLIENTS)))
    for client, found in enumerate(answers):
        assert found == [answer(model, pictures(client)).tobytes()] * REQUESTS
