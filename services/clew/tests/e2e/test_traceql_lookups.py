"""TraceQL beside search: a trace by id with a filter, names and values of tags within a query, and how
a search is explained. Spans of one trace lie in the head and in a block."""

import base64

import pytest

from dataset import SPANS, TRACES, requests
from harness import run_clew
from ledger import Ledger


@pytest.fixture(scope="module")
def filled(clew_of_module):
    server = clew_of_module()
    ledger = Ledger(server)
    assert ledger.send(requests(SPANS[::2]))
    server.flush()
    assert ledger.send(requests(SPANS[1::2] + SPANS[::7]))
    return server


def kept(server, key, **parameters):
    """Keys of the spans that stay, and the message."""
    names = {span.id: span.key for span in TRACES[key].spans}
    answer = server.get(f"/api/v2/traces/{TRACES[key].id}", **parameters)
    assert answer.status == 200, answer
    body = answer.json()
    spans = [span for resource in body["trace"]["resourceSpans"]
             for scope in resource["scopeSpans"] for span in scope["spans"]]
    found = sorted(names[base64.b64decode(span["spanId"]).hex()] for span in spans)
    assert (body.get("status") == "PARTIAL") == ("message" in body)
    return found, body.get("message", "")


@pytest.mark.parametrize("parameters, want", [
    ({"q": "{ }"}, ["charge", "post", "root"]),
    ({"q": "  "}, ["charge", "post", "root"]),
    ({"q": "{ status = error }"}, ["charge", "post"]),
    ({"q": "{ status = error }", "keep_hierarchy": "true"}, ["charge", "post", "root"]),
    ({"q": '{ name = "POST /charge" }'}, ["post"]),
    ({"q": '{ name = "POST /charge" }', "keep_hierarchy": "1"}, ["charge", "post", "root"]),
    ({"q": '{ name = "POST /charge" }', "keep_hierarchy": "t", "ancestor_depth": 1}, ["charge", "post"]),
    ({"q": '{ name = "POST /charge" }', "keep_hierarchy": "true", "ancestor_depth": 0}, ["post"]),
    ({"q": '{ name = "POST /charge" }', "keep_hierarchy": "true", "ancestor_depth": -1},
     ["charge", "post", "root"]),
    ({"q": '{ name = "POST /charge" }', "ancestor_depth": "many"}, ["post"]),
    ({"q": '{ name = "GET /cart" }', "match_depth": 1}, ["charge", "root"]),
    ({"q": '{ name = "GET /cart" }', "match_depth": -1}, ["charge", "post", "root"]),
    ({"q": '{ name = "charge" }', "match_depth": 1, "keep_hierarchy": "true"}, ["charge", "post", "root"]),
    ({"q": "{ parent.http.status_code = 402 }"}, ["post"]),
    ({"q": "{ span:childCount = 1 }"}, ["charge", "root"]),
    ({"q": "{ false }"}, []),
    ({"keep_hierarchy": "perhaps", "match_depth": -9}, ["charge", "post", "root"]),
])
def test_a_filter_keeps_the_matches_and_what_is_around_them(filled, parameters, want):
    found, message = kept(filled, "cart", **parameters)
    assert found == want
    left_out = 3 - len(want)
    assert (f"{left_out} spans do not match" in message) == (left_out > 0)


@pytest.mark.parametrize("parameters, part", [
    ({"q": "{ .a = }"}, "parse error at line 1, col 8"),
    ({"q": "{ } | count() > 1"}, "one filter"),
    ({"q": "{ } >> { }"}, "one filter"),
    ({"q": "{ } | rate()"}, "one filter"),
    ({"q": "{ } | select(name)"}, "one filter"),
    ({"q": '{ rootName = "x" }'}, "whole trace"),
    ({"q": "{ traceDuration > 1s }"}, "whole trace"),
    ({"q": "{ nestedSetParent < 0 }"}, "whole trace"),
    ({"q": '{ trace:id = "1" }'}, "whole trace"),
    ({"q": "{ }", "keep_hierarchy": "perhaps"}, "keep_hierarchy"),
    ({"q": "{ }", "keep_hierarchy": "true", "ancestor_depth": -2}, "ancestor_depth"),
    ({"q": "{ }", "keep_hierarchy": "true", "ancestor_depth": "x"}, "ancestor_depth"),
    ({"q": "{ }", "match_depth": -2}, "match_depth"),
])
def test_wrong_filters_are_refused(filled, parameters, part):
    answer = filled.get(f"/api/v2/traces/{TRACES['cart'].id}", **parameters)
    assert answer.status == 400 and part in answer.text, answer


def values(server, tag, query):
    answer = server.get(f"/api/v2/search/tag/{tag}/values", q=query)
    assert answer.status == 200, answer
    return sorted(value["value"] for value in answer.json()["tagValues"])


@pytest.mark.parametrize("query, want", [
    ('{ resource.service.name = "shop" } >> { status = error }', ["POST /charge", "charge"]),
    ('{ resource.service.name = "shop" } > { resource.service.name = "pay" }', ["POST /charge"]),
    ('{ name = "c1" } >> { }', ["c2", "c3"]),
    ('{ name = "c1" } &>> { name = "c3" }', ["c1", "c3"]),
    ('{ resource.service.name = "tree" } | count() > 4', ["f1", "f10", "f11", "f12", "f13"]),
    ('{ rootName = "GET /cart" }', ["GET /cart", "POST /charge", "charge"]),
    ('{ nestedSetParent < 0 && resource.service.name = "shop" }', ["GET /cart", "GET /items"]),
    ('{ .region = "us" }', ["POST /charge"]),
    ('{ parent.region = "span-wins" }', ["POST /charge"]),
    ('{ name = "c1" } && { name = "c3" }', ["c1", "c3"]),
    ('{ name = "c1" } && { name = "nobody" }', []),
    ('{ name = "c1" } >> { } | rate()', ["c2", "c3"]),
    ('{ traceDuration >= 99ms && status = error && resource.service.name = "pay" }', ["POST /charge"]),
])
def test_tag_values_honour_every_query(filled, query, want):
    assert values(filled, "name", query) == want


def test_tag_names_honour_every_query(filled):
    def names(query):
        scopes = filled.get("/api/v2/search/tags", scope="span", q=query).json()["scopes"]
        return {scope["name"]: scope["tags"] for scope in scopes}

    below = names('{ resource.service.name = "shop" } >> { resource.service.name = "pay" }')
    assert below == {"span": ["http.status_code", "retry"]}
    assert names('{ rootName = "GET /items" && kind = client }') == {"span": ["db.rows", "db.system"]}
    assert names('{ name = "c1" } >> { name = "nobody" }') == {}


def test_a_search_is_explained(filled):
    query = '{resource.service.name="shop"}>>{status=error} | count()>=1'
    plain = filled.search(query)
    assert "explain" not in plain
    answer = filled.search(query, explain="true")
    assert answer["traces"] == plain["traces"]
    explained = answer["explain"]
    assert explained["query"] == (
        '{ resource.service.name = "shop" } >> { status = error } | count() >= 1')
    text = "\n".join(explained["plan"])
    assert 'resource.service.name = "shop"' in text and "filter 1 and traces with filter 2" in text
    steps = {step["step"]: step for step in explained["steps"]}
    assert list(steps) == [
        "list split traces", "search blocks", "search heads", "judge split traces by index",
        "gather split traces"]
    assert steps["search blocks"]["places"] >= 1 and steps["search heads"]["places"] >= 1
    kept_by = sum(steps[name]["kept"] for name in list(steps)[1:])
    assert kept_by == len(answer["traces"]) == 1
    # A span of it was sent twice and lies in both places, which indexes cannot judge.
    assert steps["judge split traces by index"]["kept"] == 0
    assert steps["gather split traces"]["inspectedSpans"] >= 3
    assert filled.get("/api/search", q="{}", explain="maybe").status == 400
    nothing = filled.search("{ false }", explain="true")["explain"]
    assert nothing["steps"] == [] and "nothing can match" in nothing["plan"][0]


def test_traces_in_two_places_are_judged_without_their_spans(clew):
    """As long as an index looks all of it up, and no span lies in both places."""
    server = clew()
    ledger = Ledger(server)
    assert ledger.send(requests(SPANS[::2]))
    server.flush()
    assert ledger.send(requests(SPANS[1::2]))

    def steps(query):
        answer = server.search(query, explain="true")
        kept = sorted(trace["traceID"] for trace in answer["traces"])
        return kept, {step["step"]: step for step in answer["explain"]["steps"]}

    found, by_index = steps('{resource.service.name="shop"}>>{status=error} | count()>=1')
    assert by_index["judge split traces by index"]["kept"] == len(found) == 1
    assert by_index["gather split traces"]["places"] == 0
    assert sum(step["inspectedSpans"] for step in by_index.values()) == 0
    same, by_spans = steps('{resource.service.name="shop"}>>{status=error} | by(status) | count()>=1')
    assert same == found and "judge split traces by index" not in by_spans
    assert by_spans["gather split traces"]["inspectedSpans"] >= 3


def test_the_command_explains_too(filled):
    done = run_clew("explain", '{ kind = server } > { }', "--url", filled.url, "--limit", "5")
    assert done.returncode == 0, done
    assert "filter 1: look up spans: span:kind = server" in done.stdout
    assert "search blocks" in done.stdout and done.stdout.endswith(" traces\n")
    wrong = run_clew("explain", "{ .a = }", "--url", filled.url)
    assert wrong.returncode != 0 and "line 1, col 8" in wrong.stderr
    nobody = run_clew("explain", "{}", "--url", "http://127.0.0.1:1")
    assert nobody.returncode != 0 and "cannot ask" in nobody.stderr
