"""Requests meant to hurt: each is answered soon, with an error or not, and the server lives on."""

import concurrent.futures
import socket
import time
import urllib.parse

import pytest

from dataset import SPANS, requests
from harness import http
from ledger import Ledger, request, span

# Generous: a debug build on two busy cores.
SECONDS_MAX = 20


@pytest.fixture(scope="module")
def server(clew_of_module):
    server = clew_of_module()
    ledger = Ledger(server)
    long_text = "a" * 100_000
    assert ledger.send(requests(SPANS))
    assert ledger.send(request([span(b"long" * 4, b"12345678", text=long_text)]))
    server.flush()
    assert ledger.send(request([span(b"also" * 4, b"12345678", text=long_text)]))
    return server


def soon(server, path, statuses, **parameters):
    began = time.monotonic()
    answer = server.get(path, timeout=SECONDS_MAX, **parameters)
    assert time.monotonic() - began < SECONDS_MAX
    assert answer.status in statuses, answer
    assert len(answer.body) < 2_000_000
    server.assert_alive()
    return answer


QUERIES = {
    "a megabyte": "{ .a = \"" + "x" * 1_000_000 + "\" }",
    "over the limit": "{ .a = \"" + "x" * 131_072 + "\" }",
    "open braces": "{" * 20_000,
    "open parentheses": "{ " + "(" * 20_000,
    "deep parentheses": "{ " + "(" * 9_000 + ".a" + ")" * 9_000 + " }",
    "many nots": "{ " + "!" * 19_000 + ".a }",
    "many minuses": "{ " + "-" * 19_000 + "1 = 1 }",
    "deep arithmetic": "{ 1 = " + "(1+" * 6_000 + "1" + ")" * 6_000 + " }",
    "deep structures": "(" * 6_000 + "{ }" + ")" * 6_000,
    "a long pipeline": "{ }" + " | { }" * 5_000,
    "power": "{ 9 ^ 9 ^ 9 ^ 9 ^ 9 ^ 9 ^ 9 = 1 }",
    "an absurd repetition": '{ .text =~ "((a{1000}){1000}){1000}" }',
    "a large repetition": '{ .text =~ "(x+x+){900}y" }',
    "deep groups": '{ .text =~ "' + "(" * 5_000 + "a" + ")" * 5_000 + '" }',
    "an open comment": "{ } /*" + "*" * 10_000,
    "zero bytes": "{ .a = \"\0\0\" \0}",
    "right to left": "{ .\u202e = \"\u202e\" }",
    "many regexes": "{ " + " || ".join(f'.text =~ "a{n}.*"' for n in range(900)) + " }",
    "many pipes": "|" * 20_000,
    "many dots": "{ " + "." * 20_000 + " }",
    "many strings": '"' * 20_001,
}


@pytest.mark.parametrize("name", QUERIES)
def test_queries(server, name):
    answer = soon(server, "/api/search", {200, 400, 414, 431}, q=QUERIES[name])
    if answer.status == 200:
        assert isinstance(answer.json()["traces"], list)
    soon(server, "/api/v2/search/tags", {200, 400, 414, 431}, q=QUERIES[name])
    soon(server, "/api/v2/search/tag/name/values", {200, 400, 414, 431}, q=QUERIES[name])


def test_a_long_list_is_allowed(server):
    query = "{ " + " || ".join(f'name = "none{n}"' for n in range(800)) + ' || name = "charge" }'
    assert len(soon(server, "/api/search", {200}, q=query).json()["traces"]) == 1
    query = "{ " + " && ".join(f'name != "none{n}"' for n in range(800)) + ' && name = "charge" }'
    assert len(soon(server, "/api/search", {200}, q=query).json()["traces"]) == 1


@pytest.mark.parametrize("regex", [
    "(a+)+", "(a|a)*b", "(a*)*$", "(.*)(.*)(.*)(.*)(.*)(.*)x", "(?i)(a|A|aa)+c", ".*.*.*.*=.*"])
def test_regexes_that_explode_elsewhere(server, regex):
    found = soon(server, "/api/search", {200}, q='{ .text =~ "%s" }' % regex).json()["traces"]
    assert len(found) == (2 if regex == "(a+)+" or regex == "(a*)*$" else 0)


@pytest.mark.parametrize("path", [
    "/api/search?limit=" + "9" * 10_000,
    "/api/search?q=%7B%7D&start=" + "9" * 1_000 + "&end=1",
    "/api/search?q=%7B%7D&start=18446744073709551615&end=18446744073709551616",
    "/api/search?q=%7B%7D&minDuration=99999999999999999999h",
    "/api/search?q=%7B%7D&since=1e999h",
    "/api/search?q=%7B%7D&spss=NaN",
    "/api/search?q=%FF%FE",
    "/api/search?q=%",
    "/api/search?q=%zz",
    "/api/search?%FF=1",
    "/api/search?tags=" + "a%3Db%20" * 3_000,
    "/api/search?tags=" + "%22" * 10_001,
    "/api/traces/" + "f" * 50_000,
    "/api/traces/%00",
    "/api/traces/..%2f..%2fetc%2fpasswd",
    "/api/v2/search/tag/" + "a" * 50_000 + "/values",
    "/api/v2/search/tag/span." + "%2525" * 5_000 + "/values",
    "/api/v2/search/tag/%FF/values",
    "/api/search/tag/%00/values",
])
def test_parameters(server, path):
    answer = http("GET", server.url + path, timeout=SECONDS_MAX)
    assert 400 <= answer.status < 500 or answer.status == 200, answer
    server.assert_alive()


def test_the_same_parameter_ten_thousand_times(server):
    path = "/api/search?" + "&".join(["q=%7B%7D"] * 5_000)
    assert http("GET", server.url + path).status in (200, 400, 414, 431)
    path = "/api/search?" + "&".join(f"k{n}=v" for n in range(4_000))
    assert http("GET", server.url + path).status in (200, 400, 414, 431)
    server.assert_alive()


def raw(port, data, answer=True):
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX) as connection:
        connection.sendall(data)
        if not answer:
            return b""
        connection.settimeout(5)
        try:
            return connection.recv(4_096)
        except TimeoutError:
            return b""


@pytest.mark.parametrize("data", [
    b"\x00" * 1_000, b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    b"GET /api/echo HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    b"GET /api/echo HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
    b"POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
], ids=range(7))
def test_bytes_that_are_no_request(server, data):
    for port in (server.http_port, server.otlp_http_port, server.grpc_port, server.rpc_port):
        try:
            raw(port, data)
        except OSError:
            pass  # Hung up on: as good as an answer.
    server.assert_alive()


def test_connections_that_never_finish_do_not_keep_others_out(server):
    open_ones = []
    try:
        for _ in range(100):
            for port in (server.http_port, server.otlp_http_port):
                connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX)
                connection.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
                open_ones.append(connection)
        server.assert_alive()
        ledger = Ledger(server)
        assert ledger.send(ledger.batch())
        ledger.verify()
    finally:
        for connection in open_ones:
            connection.close()


def test_many_searches_at_once(server):
    query = urllib.parse.quote('{ .text =~ ".*b" || duration > 1ns }')
    url = f"{server.url}/api/search?limit=1000&q={query}"
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: http("GET", url, timeout=60), range(200)))
    assert {answer.status for answer in answers} <= {200, 429}
    counts = {len(answer.json()["traces"]) for answer in answers if answer.status == 200}
    assert len(counts) == 1
    server.assert_alive()


def test_a_client_that_leaves_is_forgotten(server):
    query = urllib.parse.quote('{ .text =~ "(a|b|ab)*c" }')
    head = f"GET /api/search?q={query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    for _ in range(50):
        raw(server.http_port, head, answer=False)
    server.assert_alive()
    assert len(server.found_ids('{ name = "charge" }')) == 1
