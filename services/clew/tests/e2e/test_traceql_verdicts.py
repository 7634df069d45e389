"""Which queries are TraceQL: some 1,100 verdicts from outside, most of them worked out from the rules
of the language rather than listed."""

import itertools
import pathlib
import re

import pytest

import traceql_cases
import traceql_errors
from traceql_cases import GROUPS

TABLES = pathlib.Path(__file__).parents[4] / "libs" / "traceql" / "tests" / "language"

# Fields with the type that is known of their values beforehand; None for attributes.
FIELDS = {
    "name": "string", "span:name": "string", "statusMessage": "string", "rootName": "string",
    "trace:rootService": "string", "trace:id": "string", "span:id": "string", "span:parentID": "string",
    "event:name": "string", "link:traceID": "string", "instrumentation:version": "string",
    "duration": "number", "span:duration": "number", "traceDuration": "number",
    "event:timeSinceStart": "number", "span:childCount": "number", "nestedSetLeft": "number",
    "nestedSetParent": "number", "status": "status", "span:status": "status", "kind": "kind",
    ".a": None, "span.a": None, "resource.a": None, "event.a": None, "link.a": None,
    "instrumentation.a": None, "parent.a": None, "parent.span.a": None, 'span."a b"': None,
}
LITERALS = {
    "1": "number", "-1.5": "number", "10ms": "number", '"x"': "string", "`x`": "string",
    "true": "bool", "ok": "status", "server": "kind", "nil": "nil",
}
COMPARISONS = ["=", "!=", "<", ">="]


def is_typed(field, operator, literal):
    """Whether a field may be compared with a literal."""
    wanted, given = FIELDS[field], LITERALS[literal]
    ordering = operator in ("<", ">=")
    if given == "nil":
        return not ordering and (operator == "!=" or wanted is None)
    if ordering and (given in ("bool", "status", "kind") or wanted in ("status", "kind")):
        return False
    return wanted is None or wanted == given


def generated():
    """Query text and whether it is one."""
    for field, operator, literal in itertools.product(FIELDS, COMPARISONS, LITERALS):
        yield f"{{ {field} {operator} {literal} }}", is_typed(field, operator, literal)
    for field, operator in itertools.product(FIELDS, ["=~", "!~"]):
        yield f"{{ {field} {operator} `x.*` }}", FIELDS[field] in (None, "string")
    for field in FIELDS:
        yield f"{{ {field} }}", FIELDS[field] is None
        yield f"{{ !{field} }}", FIELDS[field] is None
        yield f"{{ {field} + 1 > 2 }}", FIELDS[field] in (None, "number")
        yield f"{{ }} | by({field})", True
        yield f"{{ }} | select({field})", True
        yield f"{{ }} | avg({field}) > 1", FIELDS[field] in (None, "number")


def listed(name):
    lines = (TABLES / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def verdict(server, text):
    """Whether the server takes the text for a query that can be run or is one of metrics."""
    answer = server.get("/api/search", q=text, limit=1)
    if answer.status == 200:
        return True
    assert answer.status == 400, (text, answer)
    if answer.text.startswith("TraceQL metrics are not supported yet"):
        return True
    assert answer.text.startswith("invalid TraceQL query: parse error at line "), (text, answer)
    return False


def check(server, cases):
    wrong = [text for text, valid in cases if verdict(server, text) != valid]
    assert not wrong, f"{len(wrong)} of {len(cases)} are wrong:\n" + "\n".join(wrong[:30])


def test_comparisons_and_stages_are_checked_by_type(server):
    check(server, list(generated()))
    server.assert_alive()


def test_listed_queries_get_the_listed_verdict(server):
    check(server, [(text, True) for text in listed("accepted.traceql")])
    refused = [line.rsplit("  ##  ", 1) for line in listed("refused.traceql")]
    for text, rest in refused:
        answer = server.get("/api/search", q=text, limit=1)
        column, _, reason = rest.partition(" ")
        assert answer.status == 400, (text, answer)
        assert f"line 1, col {column}: " in answer.text and reason in answer.text, (text, answer)


def test_there_are_as_many_verdicts_as_promised():
    tables = [traceql_errors.MALFORMED, traceql_errors.ILL_TYPED, traceql_errors.REFUSED]
    cases = [row for rows in GROUPS.values() for row in rows]
    count = len(list(generated())) + len(listed("accepted.traceql")) + len(listed("refused.traceql"))
    assert count + sum(map(len, tables)) + len(cases) >= 1_100


@pytest.mark.parametrize("operator", [
    form + relation for form in ("", "!", "&") for relation in (">>", "<<", ">", "<", "~")] + ["&&", "||"])
def test_operators_stand_between_spansets_only(server, operator):
    for text, valid in [
        (f"{{ .a }} {operator} {{ .b }}", True),
        (f"({{ .a }}) {operator} ({{ .b }})", True),
        (f"({{ .a }} | count() > 1) {operator} {{ .b }}", True),
        (f"{{ .a }}{operator}{{ .b }}", True),
        (f"{{ .a }} {operator}", False),
        (f"{operator} {{ .a }}", False),
        (f"{{ .a }} {operator} 1", False),
        (f"{{ .a }} {operator} count() > 1", False),
        (f"{{ .a }} {operator} by(name)", False),
    ]:
        assert verdict(server, text) == valid, text


def test_the_page_of_rules_names_tests_that_exist():
    here = pathlib.Path(__file__).parent
    page = (here.parents[3] / "docs" / "design" / "traceql-tests.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|") and not line.startswith(("|--", "| rule"))]
    for row in rows:
        tests = re.split(r"(?<!\\)\|", row)[2]
        tables = re.findall(r"\b[A-Z][A-Z_]{2,}\b", tests)
        assert all(hasattr(traceql_cases, t) or hasattr(traceql_errors, t) for t in tables), row
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
        assert tables or named, row
        for file, test in named:
            assert f"def {test}(" in (here / file).read_text(), (file, test)
