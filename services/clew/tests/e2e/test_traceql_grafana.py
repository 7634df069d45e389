"""Grafana's own editor grammar as a second opinion on what TraceQL is. Where the two differ, the
reason is listed here and in docs/traceql.md."""

import json
import re
import subprocess

import npm
import traceql_errors
from test_traceql_verdicts import generated, listed, verdict
from traceql_cases import GROUPS

# What the grammar does not know and Tempo's documentation does; what it lets pass because it looks at
# neither numbers nor regular expressions nor types.
WE_ACCEPT = {
    "nested set fields": r"nestedSet(Left|Right|Parent)",
    "span:childCount": r"span:childCount",
    "attributes of the parent": r"parent\.",
    "minInt and maxInt": r"\b(minInt|maxInt)\b",
    "durations of days and more, or of several parts": r"\d(d|w|y)\b|\d(h|m|s)\d",
    "floats without a digit on one side, or with an exponent": r"(^|[^\w.])\.\d|\d\.( |$)|\d[eE]\d",
    "escapes in strings other than of quotes": r"\\[ntu]",
    "names with marks and letters outside ASCII": r"\.[\w.]*[^\x00-\x7f\w\s.]|\.[^\x00-\x7f]|\.\w+[-+/:]\w|\.\[|ünï",
    "names that begin like a scope": r"span\.(span|resource|parent)\.",
    "comparisons, arithmetic and ranks of metrics": r"\(\) *(by\(\w+\) *)?(\| *topk\(\d+\) *)?[><]|_over_time\(\w+\) *!=|rate\(\)\)",
    "pipelines as scalars": r"\| (count|avg|min|max|sum)\((duration)?\)\)",
    "hints that it does not list": r"with *\(",
    "quantiles": r"quantile_over_time",
}
WE_REFUSE = {
    "integers that do not fit": r"\d{19,}",
    "regular expressions that RE2 has not, or that are no text": r"[=!]~",
    "`~` between fields": r" ~ ",
}


def opinions(queries):
    script = npm.script("traceql.mjs")
    lines = "".join(json.dumps(query) + "\n" for query in queries)
    done = subprocess.run(["node", str(script)], input=lines, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert len(said) == len(queries)
    return dict(zip(queries, (word == "valid" for word in said)))


def explained(differences, reasons):
    """Each difference has a listed reason, and no reason is listed for nothing."""
    unexplained = [q for q in differences if not any(re.search(r, q) for r in reasons.values())]
    unused = [name for name, r in reasons.items() if not any(re.search(r, q) for q in differences)]
    return unexplained, unused


def valid_queries():
    yield from (query for rows in GROUPS.values() for query, _ in rows)
    yield from listed("accepted.traceql")
    yield from (query for query, valid in generated() if valid)
    yield from traceql_errors.NOT_YET


def test_grafanas_grammar_knows_what_clew_accepts(server):
    queries = sorted(set(valid_queries()))
    said = opinions(queries)
    differences = [query for query in queries if not said[query]]
    assert len(differences) < len(queries) / 3
    for query in differences:
        assert verdict(server, query), query
    unexplained, unused = explained(differences, WE_ACCEPT)
    assert not unexplained and not unused, (unexplained, unused)


def test_clew_refuses_what_grafanas_grammar_refuses(server):
    queries = sorted({row[0] for row in traceql_errors.MALFORMED})
    said = opinions(queries)
    differences = [query for query in queries if said[query]]
    unexplained, unused = explained(differences, WE_REFUSE)
    assert not unexplained and not unused, (unexplained, unused)
    for query in queries:
        assert server.get("/api/search", q=query).status == 400, query
