"""A short run of `make chaos`, so that it cannot rot: without cut links, which need root and a namespace of
their own."""

import chaos


def test_a_short_run_of_chaos(clew):
    lines = []
    chaos.run(clew, seed=4, minutes=0.75, network=None, log=lines.append)
    done = [line for line in lines if not line.startswith(" ")]
    assert len(done) > 2, lines
