"""Fixtures of the deployment tests; servers come from the end-to-end tests beside them."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import pytest  # noqa: E402

from harness import Clew  # noqa: E402


@pytest.fixture(scope="module")
def start():
    """Starts servers, as in the end-to-end tests; closes them whatever happens."""
    started = []

    def start_one(*settings, roles=(), wait=True, run=True, **place):
        server = Clew(settings, None, roles, **place)
        started.append(server)
        return server.start(wait=wait) if run else server

    yield start_one
    for server in started:
        server.close()
