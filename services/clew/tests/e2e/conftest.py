"""Fixtures: servers that are closed, and whose logs are looked at, whatever happens."""

import pytest

from harness import Clew


def starter():
    """Yields a function that starts servers; closes them and checks what they logged."""
    started = []

    def start(*settings, env=None, roles=(), wait=True, run=True, **place):
        server = Clew(settings, env, roles, **place)
        started.append(server)
        return server.start(wait=wait) if run else server

    try:
        yield start
        alarms = [line for server in started for line in server.alarms()]
        assert not alarms, "the server logged errors:\n" + "\n".join(alarms)
    finally:
        for server in started:
            server.close()


@pytest.fixture
def clew():
    """Starts servers; `clew(settings…, env=…)` returns a ready one."""
    yield from starter()


@pytest.fixture(scope="module")
def clew_of_module():
    """The same for servers that a module shares."""
    yield from starter()


@pytest.fixture
def server(clew):
    """A ready server with default settings."""
    return clew()
