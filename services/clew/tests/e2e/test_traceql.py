"""TraceQL filters, judged on heads, on blocks, and on traces that lie in both."""

import pytest

import traceql_errors
from dataset import MISSING_ROOT, SPANS, TRACES, requests
from ledger import Ledger
from traceql_cases import GROUPS

CASES = [(query, want) for rows in GROUPS.values() for query, want in rows]
NAMES_BY_ID = {trace.id: key for key, trace in TRACES.items()}


def fill_head(ledger):
    assert ledger.send(requests(SPANS))


def fill_blocks(ledger):
    assert ledger.send(requests(SPANS))
    ledger.server.flush()


def fill_both(ledger):
    """Every other span is flushed first, a few are sent again as after a lost answer."""
    assert ledger.send(requests(SPANS[::2]))
    ledger.server.flush()
    assert ledger.send(requests(SPANS[1::2]))
    assert ledger.send(requests(SPANS[::5]))


def fill_two_blocks(ledger):
    """The later spans come first, each half in a block of its own, read back after a crash."""
    assert ledger.send(requests(SPANS[1::2]))
    ledger.server.flush()
    assert ledger.send(requests(SPANS[::2] + SPANS[1::7]))
    ledger.server.flush()
    ledger.server.kill9()
    ledger.server.start()


FILLS = {"head": fill_head, "blocks": fill_blocks, "both": fill_both, "two blocks": fill_two_blocks}


@pytest.fixture(scope="module", params=FILLS)
def filled(request, clew_of_module):
    server = clew_of_module()
    FILLS[request.param](Ledger(server))
    yield server
    server.stop()


def expected(want):
    """Trace name -> the ids of its matching spans, or how many match."""
    if callable(want):
        found = {}
        for span in SPANS:
            if want(span):
                found.setdefault(span.trace.key, set()).add(span.id)
        return found
    found = {}
    for name in want.split():
        key, _, count = name.partition(":")
        assert key in TRACES, key
        found[key] = int(count or 1)
    return found


def judge(server, query, want):
    """What is wrong with the answer, as text; nothing if it is right."""
    answer = server.get("/api/search", q=query, limit=1000, spss=100)
    if answer.status != 200:
        return f"status {answer.status}: {answer.text}"
    traces = answer.json()["traces"]
    starts = [int(trace["startTimeUnixNano"]) for trace in traces]
    if starts != sorted(starts, reverse=True):
        return "not newest first"
    found = {}
    for trace in traces:
        key = NAMES_BY_ID.get(trace["traceID"].rjust(32, "0"), trace["traceID"])
        if key in found:
            return f"{key} is found twice"
        found[key] = {span["spanID"] for span in trace["spanSet"]["spans"]}
        if len(found[key]) != trace["spanSet"]["matched"]:
            return f"{key}: matched {trace['spanSet']['matched']}, shown {len(found[key])}"
    wanted = expected(want)
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        return f"missing {missing}, too many {extra}"
    for key, spans in wanted.items():
        if found[key] != spans if isinstance(spans, set) else len(found[key]) != spans:
            return f"{key}: matched {sorted(found[key])}, expected {spans}"
    return None


@pytest.mark.parametrize("group", GROUPS)
def test_filters_find_exactly_what_they_say(filled, group):
    rows = GROUPS[group]
    judged = [(query, judge(filled, query, want)) for query, want in rows]
    wrong = [f"{query}\n    {verdict}" for query, verdict in judged if verdict]
    assert not wrong, f"{len(wrong)} of {len(rows)} are wrong:\n" + "\n".join(wrong)


def test_the_table_is_as_large_as_it_should_be():
    assert len(CASES) >= 250
    assert len({query for query, _ in CASES}) == len(CASES), "a query is there twice"


def test_every_trace_is_whole_by_id(filled):
    for key, trace in TRACES.items():
        found = filled.trace_spans(trace.id)
        assert sorted(found) == sorted(span.id for span in trace.spans), key


@pytest.mark.parametrize("key", TRACES)
def test_the_summary_of_a_trace_is_that_of_the_whole(filled, key):
    trace = TRACES[key]
    found = filled.search('{ trace:id = "%s" }' % trace.id, spss=1)["traces"]
    assert len(found) == 1
    summary = found[0]
    assert summary["traceID"] == trace.id.lstrip("0")
    assert summary["spanSet"] == summary["spanSets"][0] and len(summary["spanSets"]) == 1
    assert summary["spanSet"]["matched"] == len(trace.spans)
    assert len(summary["spanSet"]["spans"]) == 1
    first = min(span.at for span in trace.spans)
    assert int(summary["startTimeUnixNano"]) == trace.start + first
    assert summary.get("durationMs", 0) == trace.duration // 1_000_000
    if trace.root is not None:
        assert summary.get("rootTraceName", "") == trace.root.name
        assert summary.get("rootServiceName", "") == (trace.root.service or "")
    elif not [span for span in trace.spans if not span.parent]:
        assert summary["rootServiceName"] == MISSING_ROOT
    stats = {}
    for span in trace.spans:
        stat = stats.setdefault(span.service or "", {"spanCount": 0, "errorCount": 0})
        stat["spanCount"] += 1
        stat["errorCount"] += span.status == 2
    shown = {name: {"spanCount": stat["spanCount"], "errorCount": stat.get("errorCount", 0)}
             for name, stat in summary["serviceStats"].items()}
    assert shown == stats


def test_integer_division_by_zero_and_array_arithmetic_are_errors(filled):
    for query, word in [("{ span.n / 0 = 1 }", "zero"), ("{ span.n % 0 = 1 }", "zero"),
                        ('{ span.v + 1 = 2 && resource.service.name = "values" }', "array")]:
        answer = filled.get("/api/search", q=query)
        assert answer.status in (400, 500), (query, answer)
        assert word in answer.text, (query, answer)
    filled.assert_alive()


def judge_error(server, query, line, col, words):
    answer = server.get("/api/search", q=query)
    where = f"invalid TraceQL query: parse error at line {line}, col {'' if col is None else col}"
    if answer.status != 400:
        return f"status {answer.status}: {answer.text[:200]}"
    if not answer.text.startswith(where if col is None else where + ": "):
        return f"expected {where!r}, not {answer.text[:200]!r}"
    if words and not any(word in answer.text for word in words):
        return f"none of {words} in {answer.text[:200]!r}"
    return None


@pytest.mark.parametrize("table", ["MALFORMED", "ILL_TYPED", "REFUSED"])
def test_wrong_queries_are_refused_with_line_and_column(server, table):
    rows = getattr(traceql_errors, table)
    judged = [(row[0], judge_error(server, *row)) for row in rows]
    wrong = [f"{query[:100]!r}\n    {verdict}" for query, verdict in judged if verdict]
    assert not wrong, f"{len(wrong)} of {len(rows)} are wrong:\n" + "\n".join(wrong)
    server.assert_alive()


def test_what_is_not_there_yet_says_so(server):
    wrong = []
    for query in traceql_errors.NOT_YET:
        answer = server.get("/api/search", q=query)
        if answer.status != 400 or "not supported yet" not in answer.text:
            wrong.append(f"{query}\n    {answer}")
    assert not wrong, f"{len(wrong)} are wrong:\n" + "\n".join(wrong)


def test_the_same_error_for_tempo_spelling_of_the_parameter(server):
    answer = server.get("/api/search", query="{ .a = }")
    assert answer.status == 400
    assert answer.text.startswith("invalid TraceQL query: parse error at line 1, col 8: ")
