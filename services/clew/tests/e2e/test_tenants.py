"""Tenants are walls (P6): in the log, in blocks and in every read."""

import json
import urllib.parse

import grpc
import pytest

from harness import http
from ledger import Ledger, request, span

SHARED = bytes(range(1, 17))


def as_tenant(tenant):
    return {"X-Scope-OrgID": tenant}


def ledger_of(server, tenant, seed=1):
    return Ledger(server, seed=seed, metadata=[("x-scope-orgid", tenant)])


@pytest.fixture(scope="module")
def tenants(clew_of_module):
    return clew_of_module("multitenancy_enabled=true")


def fill(server):
    """Tenants a and b with a trace each, and one trace id that both use."""
    for tenant in "ab":
        ledger = ledger_of(server, tenant)
        own = tenant.encode() * 16
        assert ledger.send(request(
            [span(own, tenant.encode() * 8, name=f"op-{tenant}", secret=f"of {tenant}")],
            service=f"service-{tenant}"))
        assert ledger.send(request(
            [span(SHARED, tenant.encode() * 8, name=f"shared-{tenant}", shared=tenant)],
            service=f"service-{tenant}"))


def check_walls(server):
    for tenant, other in ["ab", "ba"]:
        me = as_tenant(tenant)
        own, foreign = (each.encode().hex() * 16 for each in (tenant, other))
        # By id.
        assert server.trace_spans(own, me) == [tenant.encode().hex() * 8]
        assert server.trace_spans(foreign, me) == []
        assert server.get(f"/api/traces/{foreign}", headers=me).status == 404
        assert server.trace_spans(SHARED.hex(), me) == [tenant.encode().hex() * 8]
        # Search.
        assert set(server.found_ids("{}", me)) == {own, SHARED.hex()}
        assert server.found_ids('{ span.secret = "of %s" }' % other, me) == []
        assert server.found_ids('{ trace:id = "%s" }' % foreign, me) == []
        for trace in server.search("{}", me)["traces"]:
            assert set(trace["serviceStats"]) == {f"service-{tenant}"}
            assert trace["spanSet"]["matched"] == 1
        assert not server.get("/api/search", headers=me, tags=f"service.name=service-{other}").json()["traces"]
        # Tags and values.
        for path in ["/api/search/tag/service.name/values",
                     "/api/v2/search/tag/resource.service.name/values",
                     "/api/v2/search/tag/span.secret/values", "/api/search/tags",
                     "/api/v2/search/tag/name/values", "/api/v2/search/tags"]:
            text = server.get(path, headers=me).text
            assert f"-{other}" not in text and f"of {other}" not in text, path
        values = server.get("/api/v2/search/tag/span.secret/values", headers=me).json()
        assert values["tagValues"] == [{"type": "string", "value": f"of {tenant}"}]


def test_walls_stand_before_and_after_a_flush_and_a_crash(clew):
    server = clew("multitenancy_enabled=true")
    fill(server)
    check_walls(server)
    server.flush()
    check_walls(server)
    fill(server)
    check_walls(server)
    server.kill9()
    server.start()
    check_walls(server)


def test_federated_reads_join_tenants(clew):
    server = clew("multitenancy_enabled=true")
    fill(server)
    for _ in range(2):
        for header in ["a|b", "b|a", "a|b|a|b"]:
            both = as_tenant(header)
            assert set(server.found_ids("{}", both)) == {"61" * 16, "62" * 16, SHARED.hex()}
            assert sorted(server.trace_spans(SHARED.hex(), both)) == ["61" * 8, "62" * 8]
            values = server.get("/api/v2/search/tag/span.secret/values", headers=both).json()
            assert {each["value"] for each in values["tagValues"]} == {"of a", "of b"}
            names = server.get("/api/search/tag/service.name/values", headers=both).json()
            assert set(names["tagValues"]) == {"service-a", "service-b"}
            assert server.get("/api/v2/search/tags", headers=both).status == 200
        assert set(server.found_ids("{}", as_tenant("a|nobody"))) == {"61" * 16, SHARED.hex()}
        server.flush()


def test_federation_can_be_off(clew):
    server = clew("multitenancy_enabled=true", "querier.multi_tenant_queries_enabled=false")
    assert server.get("/api/search", headers=as_tenant("a"), q="{}").status == 200
    assert server.get("/api/search", headers=as_tenant("a|b"), q="{}").status == 400


READS = ["/api/search?q={}", "/api/traces/12", "/api/v2/traces/12", "/api/search/tags",
         "/api/v2/search/tags", "/api/search/tag/a/values", "/api/v2/search/tag/.a/values"]


@pytest.mark.parametrize("path", READS)
def test_a_missing_tenant_is_401(tenants, path):
    for headers in [{}, as_tenant("")]:
        answer = tenants.get(path, headers=headers)
        assert (answer.status, answer.text.strip()) == (401, "no org id")


def test_what_needs_no_tenant(tenants):
    for path in ["/api/echo", "/api/status/buildinfo", "/ready", "/metrics", "/status"]:
        assert tenants.get(path).status == 200


BAD_IDS = ["a b", "a/b", "../b", ".", "..", "a\\b", "a,b", "a:b", "a%2fb", "a=b", '"a"', "a&b", "a;b",
           "x" * 151, "é", "a\tb", "{a}", "$a", "a@b", "a~b", "a+b", "[a]", "<a>", "a?b", "#"]


@pytest.mark.parametrize("tenant", BAD_IDS)
def test_a_bad_tenant_is_400(tenants, tenant):
    header = as_tenant(tenant.encode().decode("latin-1"))
    for path in READS:
        answer = tenants.get(path, headers=header)
        assert answer.status == 400 and answer.text, answer
    answer = http("POST", tenants.otlp_http, request([span(SHARED, b"12345678")]).SerializeToString(),
                  {"Content-Type": "application/x-protobuf", **header})
    assert answer.status == 400, answer


@pytest.mark.parametrize("header", ["a|", "|a", "|", "a||b", "a|.", "a|b/c", "|".join(["t"] * 100_000)])
def test_a_bad_part_of_a_federation_is_an_error(tenants, header):
    assert tenants.get("/api/search?q={}", headers=as_tenant(header)).status in (400, 401, 431)
    tenants.assert_alive()


@pytest.mark.parametrize("tenant", ["x" * 150, "!-_.*'()", "*", "...", "A", "0", "single-tenant"])
def test_every_allowed_tenant_works(tenants, tenant):
    ledger = ledger_of(tenants, tenant, seed=tenant)
    message = ledger.batch(traces=1)
    assert ledger.send(message)
    for _ in range(2):
        for trace_id, spans in ledger.acked.items():
            assert set(tenants.trace_spans(trace_id, as_tenant(tenant))) == spans
            assert tenants.trace_spans(trace_id, as_tenant("someone-else")) == []
        assert tenants.found_ids("{}", as_tenant(tenant)) == list(ledger.acked)
        tenants.flush()


def test_tenants_are_told_apart_by_case(tenants):
    assert ledger_of(tenants, "Case").send(request([span(b"C" * 16, b"12345678")]))
    assert tenants.found_ids("{}", as_tenant("Case")) == [b"C".hex() * 16]
    assert tenants.found_ids("{}", as_tenant("case")) == []


def test_ingest_needs_one_tenant(tenants):
    body = request([span(SHARED, b"12345678")])
    for metadata in [(), [("x-scope-orgid", "")], [("x-scope-orgid", "a|b")], [("x-scope-orgid", "..")],
                     [("x-scope-orgid", "a"), ("x-scope-orgid", "b")]]:
        ledger = Ledger(tenants, metadata=metadata)
        with pytest.raises(grpc.RpcError) as error:
            ledger.stub.Export(body, metadata=metadata)
        assert error.value.code() in (
            grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED), metadata
        assert error.value.details()
    plain = {"Content-Type": "application/json"}
    for headers in [plain, {**plain, **as_tenant("a|b")}, {**plain, **as_tenant("")}]:
        answer = http("POST", tenants.otlp_http, b"{}", headers)
        assert answer.status in (400, 401), answer
        assert json.loads(answer.body)["message"]


def test_the_header_is_ignored_without_multitenancy(server):
    ledger = ledger_of(server, "a")
    assert ledger.send(request([span(SHARED, b"12345678")]))
    for header in ["", "b", "a|b", "..", "not allowed/at all"]:
        assert server.trace_spans(SHARED.hex(), as_tenant(header)) == [b"12345678".hex()]
        assert server.found_ids("{}", as_tenant(header)) == [SHARED.hex()]
        quoted = urllib.parse.quote("resource.service.name")
        values = server.get(f"/api/v2/search/tag/{quoted}/values", headers=as_tenant(header))
        assert values.json()["tagValues"] == [{"type": "string", "value": "shop"}]


def test_a_hundred_tenants_in_one_object(clew):
    server = clew("multitenancy_enabled=true")
    ledgers = {f"tenant-{n}": ledger_of(server, f"tenant-{n}", seed=n) for n in range(100)}
    for ledger in ledgers.values():
        assert ledger.send(ledger.batch(traces=2, spans=3))
    server.flush()
    server.kill9()
    server.start()
    for tenant, ledger in ledgers.items():
        assert set(server.found_ids("{}", as_tenant(tenant))) == set(ledger.acked)
        for trace_id, spans in ledger.acked.items():
            assert set(server.trace_spans(trace_id, as_tenant(tenant))) == spans
    wrong = next(iter(ledgers["tenant-1"].acked))
    assert server.trace_spans(wrong, as_tenant("tenant-2")) == []
