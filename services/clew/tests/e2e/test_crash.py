"""Kill -9 in the middle of ingest and at every step of a flush; the ledger is the oracle."""

import threading
import time

import pytest

from ledger import Ledger

FLUSH_STEPS = ["sealed", "built", "uploaded", "registered", "log_told", "dropped"]


def test_an_unflushed_log_survives_kill_9(server):
    ledger = Ledger(server)
    for number in range(20):
        assert ledger.send(ledger.batch(number=number))
    server.kill9()
    server.start()
    ledger.verify()
    ledger.verify_search()
    server.flush()
    ledger.verify()
    ledger.verify_search()
    server.kill9()
    server.start()
    ledger.verify()
    ledger.verify_search()


def test_kill_9_in_the_middle_of_ingest(clew):
    server = clew("ingester.flush.spans_max=400")
    ledger = Ledger(server)
    for round_number in range(4):
        stop = threading.Event()

        def send_all():
            number = 0
            while not stop.is_set():
                ledger.send(ledger.batch(traces=2, spans=20, number=number), timeout=3)
                number += 1

        sender = threading.Thread(target=send_all)
        sender.start()
        time.sleep(0.7 + 0.3 * round_number)
        server.kill9()
        stop.set()
        sender.join()
        server.start()
        ledger.connect()
        ledger.verify(sample=500)
    assert ledger.acked, "nothing was acknowledged"
    ledger.verify()
    ledger.verify_search()
    server.flush()
    ledger.verify(sample=1_000)
    ledger.verify_search()


@pytest.mark.parametrize("step", FLUSH_STEPS)
def test_dying_at_a_step_of_a_flush_loses_and_doubles_nothing(clew, step):
    server = clew(env={"FAILPOINTS": f"flush::{step}=return"})
    ledger = Ledger(server)
    for number in range(5):
        assert ledger.send(ledger.batch(number=number))
    with pytest.raises(Exception):
        # The process ends itself at the step, so the call breaks off.
        server.flush()
    assert server.wait_dead() != 0
    server.env.clear()
    server.start()
    ledger.connect()
    ledger.verify()
    ledger.verify_search()
    for number in range(5, 8):
        assert ledger.send(ledger.batch(number=number))
    server.flush()
    ledger.verify()
    ledger.verify_search()
    # What never was registered is no part of the catalog, so only live objects are listed.
    assert server.metric("clew_ingester_flushes_total") >= 1


@pytest.mark.parametrize("step", ["before_log", "after_log"])
def test_dying_around_the_append_tells_the_truth(clew, step):
    server = clew(env={"FAILPOINTS": f"append::{step}=10*off->return"})
    ledger = Ledger(server)
    number = 0
    while server.process.poll() is None and number < 100:
        ledger.send(ledger.batch(number=number), timeout=5)
        number += 1
    assert server.process.poll() is not None, "the failpoint was never reached"
    server.env.clear()
    server.start()
    ledger.connect()
    assert ledger.acked
    ledger.verify()
