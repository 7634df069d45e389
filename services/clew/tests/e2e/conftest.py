"""Fixtures: a fresh server per test, closed whatever happens."""

import pytest

from harness import Clew


@pytest.fixture
def clew():
    """Starts servers; `clew(settings…, env=…)` returns a ready one."""
    started = []

    def start(*settings, env=None, wait=True):
        server = Clew(settings, env)
        started.append(server)
        return server.start(wait=wait)

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(clew):
    """A ready server with default settings."""
    return clew()
