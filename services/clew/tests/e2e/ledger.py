"""Sends spans over OTLP gRPC and remembers which of them were acknowledged.

A failed call is unknown, not absent: its spans may or may not be found, but never twice.
"""

import random
import threading
import time

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


def attribute(key, value):
    kinds = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
    return common_pb2.KeyValue(
        key=key, value=common_pb2.AnyValue(**{kinds[type(value)]: value}))


def span(trace_id, span_id, parent=b"", name="op", start=None, duration=1_000_000, kind=2,
         status=0, **attributes):
    start = start if start is not None else time.time_ns()
    return trace_pb2.Span(
        trace_id=trace_id, span_id=span_id, parent_span_id=parent, name=name, kind=kind,
        start_time_unix_nano=start, end_time_unix_nano=start + duration,
        status=trace_pb2.Status(code=status),
        attributes=[attribute(key.replace("__", "."), value) for key, value in attributes.items()])


def request(spans, service="shop", **resource):
    attributes = [attribute("service.name", service)]
    attributes += [attribute(key.replace("__", "."), value) for key, value in resource.items()]
    return trace_service_pb2.ExportTraceServiceRequest(resource_spans=[
        trace_pb2.ResourceSpans(
            resource=resource_pb2.Resource(attributes=attributes),
            scope_spans=[trace_pb2.ScopeSpans(spans=spans)])])


class Ledger:
    """What was sent, and what of it was acknowledged."""

    def __init__(self, server, seed=1, metadata=()):
        self.server = server
        self.random = random.Random(seed)
        self.metadata = metadata
        self.lock = threading.Lock()
        self.acked = {}
        self.unknown = {}
        self.channel = None
        self.connect()

    def connect(self):
        if self.channel is not None:
            self.channel.close()
        self.channel = grpc.insecure_channel(self.server.otlp_grpc)
        self.stub = trace_service_pb2_grpc.TraceServiceStub(self.channel)

    def send(self, message, timeout=10):
        """One export; returns whether it was acknowledged in full."""
        spans = [
            (each.trace_id.hex(), each.span_id.hex())
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for each in scope.spans
        ]
        try:
            answer = self.stub.Export(message, timeout=timeout, metadata=self.metadata)
            book = self.unknown if answer.partial_success.rejected_spans else self.acked
        except grpc.RpcError:
            book = self.unknown
        with self.lock:
            for trace_id, span_id in spans:
                book.setdefault(trace_id, set()).add(span_id)
        return book is self.acked

    def batch(self, traces=5, spans=8, number=0):
        """A request of whole traces, each span with a unique attribute."""
        message_spans = []
        for _ in range(traces):
            trace_id = self.random.randbytes(16)
            parent = b""
            for at in range(spans):
                span_id = self.random.randbytes(8)
                message_spans.append(span(
                    trace_id, span_id, parent, name=f"op-{at}", unique__id=span_id.hex(),
                    batch__number=number, http__status_code=500 if at == 3 else 200))
                parent = parent or span_id
        return request(message_spans)

    def verify(self, sample=None):
        """Every acknowledged span is found by id, once; nothing unheard of is found.

        With `sample`, only that many traces are looked at.
        """
        traces = list(self.acked.items())
        if sample is not None:
            traces = self.random.sample(traces, min(sample, len(traces)))
        for trace_id, spans in traces:
            found = self.server.trace_spans(trace_id)
            assert len(found) == len(set(found)), f"trace {trace_id} shows a span twice"
            missing = spans - set(found)
            assert not missing, f"trace {trace_id} lost {len(missing)} of {len(spans)} spans"
            foreign = set(found) - spans - self.unknown.get(trace_id, set())
            assert not foreign, f"trace {trace_id} has spans nobody sent: {foreign}"

    def verify_search(self, sample=50):
        """A sample of acknowledged spans is found by a unique attribute, each in one trace."""
        items = [(t, s) for t, spans in self.acked.items() for s in spans]
        for trace_id, span_id in self.random.sample(items, min(sample, len(items))):
            found = self.server.found_ids('{ span.unique.id = "%s" }' % span_id)
            assert found == [trace_id], f"span {span_id}: {found}"
