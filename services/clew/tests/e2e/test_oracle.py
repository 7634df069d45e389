"""The ledger that every test of crashes relies on notices the defects that it is there for.

Each defect is planted behind a switch; the same run without it passes, with it the ledger must
complain. A ledger that cannot fail proves nothing.
"""

import contextlib
import threading
import time

import pytest

from harness import run_clew
from ledger import Ledger


@contextlib.contextmanager
def noticed(bug):
    """Fails if the oracle does not complain of the defect, or complains without one."""
    if bug:
        with pytest.raises(AssertionError):
            yield
    else:
        yield


def points(*active):
    return {"FAILPOINTS": ";".join(point for point in active if point)}


@pytest.mark.parametrize("bug", [None, "bug::ack_before_commit=return"])
def test_an_ack_before_the_commit_is_noticed(clew, bug):
    server = clew(env=points(bug, "append::before_log=10*off->return"))
    ledger = Ledger(server)
    for number in range(100):
        if server.process.poll() is not None:
            break
        ledger.send(ledger.batch(number=number), timeout=5)
    assert server.wait_dead() != 0
    server.env.clear()
    server.start()
    ledger.connect()
    assert ledger.acked
    with noticed(bug):
        ledger.verify()


@pytest.mark.parametrize("bug", [None, "bug::read_without_index=return"])
def test_a_read_that_does_not_wait_for_its_index_is_noticed(clew, bug):
    server = clew(env=points(bug, "head::consume=sleep(700)"))
    ledger = Ledger(server)
    with noticed(bug):
        for number in range(3):
            assert ledger.send(ledger.batch(number=number))
            ledger.verify()


@pytest.mark.parametrize("bug", [None, "bug::seal_too_far=return"])
def test_a_flush_that_claims_more_than_it_holds_is_noticed(clew, bug):
    server = clew(env=points(bug, "flush::built=sleep(2000)"))
    # The block's own footer tells, too: its key names another end of the log.
    server.errors_expected = bug is not None
    ledger = Ledger(server)
    assert ledger.send(ledger.batch(number=0))
    flushing = threading.Thread(target=server.flush)
    flushing.start()
    # Acknowledged after the seal, while the object waits to be stored.
    for number in range(1, 20):
        assert ledger.send(ledger.batch(number=number))
        time.sleep(0.05)
    flushing.join()
    server.kill9()
    server.env.clear()
    server.start()
    ledger.connect()
    with noticed(bug):
        ledger.verify()


@pytest.mark.parametrize("bug", [None, "bug::no_compare_and_set=return"])
def test_a_flush_that_comes_too_late_and_is_registered_is_noticed(clew, bug):
    """The second flush comes as from a leader that others have overtaken: what it holds is flushed."""
    server = clew("compactor.poll_interval=1h", env=points(bug, "flush::late=1*off->1*return->off"))
    ledger = Ledger(server)
    for number in range(2):
        assert ledger.send(ledger.batch(number=number))
        server.flush()
    ledger.verify()
    with noticed(bug):
        checked = run_clew("fsck", "--addr", server.rpc_addr, "--data-dir", str(server.data))
        assert checked.returncode == 0, checked
