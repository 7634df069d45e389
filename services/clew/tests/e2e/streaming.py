"""A client of `tempopb.StreamingQuerier`, made from the field numbers that Tempo's clients use and not
from Clew's own protocol files."""

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TYPES = {"u32": 13, "u64": 4, "i64": 3, "double": 1, "string": 9, "bool": 8, "i32": 5}

# Message -> (number, name, type, repeated). A type that is no scalar is a message.
MESSAGES = {
    "AnyValue": [(1, "string_value", "string"), (2, "bool_value", "bool"), (3, "int_value", "i64"),
                 (4, "double_value", "double")],
    "KeyValue": [(1, "key", "string"), (2, "value", "AnyValue")],
    "TagsEntry": [(1, "key", "string"), (2, "value", "string")],
    "SearchRequest": [(1, "Tags", "TagsEntry", True), (2, "MinDurationMs", "u32"),
                      (3, "MaxDurationMs", "u32"), (4, "Limit", "u32"), (5, "start", "u32"),
                      (6, "end", "u32"), (8, "Query", "string"), (9, "SpansPerSpanSet", "u32"),
                      (11, "skipASTTransformations", "string", True)],
    "SearchResponse": [(1, "traces", "TraceSearchMetadata", True), (2, "metrics", "SearchMetrics")],
    "TraceSearchMetadata": [(1, "traceID", "string"), (2, "rootServiceName", "string"),
                            (3, "rootTraceName", "string"), (4, "startTimeUnixNano", "u64"),
                            (5, "durationMs", "u32"), (6, "spanSet", "SpanSet"),
                            (7, "spanSets", "SpanSet", True), (8, "serviceStats", "StatsEntry", True)],
    "StatsEntry": [(1, "key", "string"), (2, "value", "ServiceStats")],
    "ServiceStats": [(1, "spanCount", "u32"), (2, "errorCount", "u32")],
    "SpanSet": [(1, "spans", "Span", True), (2, "matched", "u32"), (3, "attributes", "KeyValue", True)],
    "Span": [(1, "spanID", "string"), (2, "name", "string"), (3, "startTimeUnixNano", "u64"),
             (4, "durationNanos", "u64"), (5, "attributes", "KeyValue", True)],
    "SearchMetrics": [(1, "inspectedTraces", "u32"), (2, "inspectedBytes", "u64"),
                      (3, "totalBlocks", "u32"), (4, "completedJobs", "u32"), (5, "totalJobs", "u32"),
                      (6, "totalBlockBytes", "u64"), (7, "inspectedSpans", "u64")],
    "SearchTagsRequest": [(1, "scope", "string"), (2, "query", "string"), (3, "start", "u32"),
                          (4, "end", "u32"), (5, "maxTagsPerScope", "u32")],
    "SearchTagsResponse": [(1, "tagNames", "string", True), (2, "metrics", "MetadataMetrics")],
    "SearchTagsV2Response": [(1, "scopes", "TagsScope", True), (2, "metrics", "MetadataMetrics")],
    "TagsScope": [(1, "name", "string"), (2, "tags", "string", True)],
    "SearchTagValuesRequest": [(1, "tagName", "string"), (2, "query", "string"), (4, "start", "u32"),
                               (5, "end", "u32"), (6, "maxTagValues", "u32")],
    "SearchTagValuesResponse": [(1, "tagValues", "string", True), (2, "metrics", "MetadataMetrics")],
    "SearchTagValuesV2Response": [(1, "tagValues", "TagValue", True), (2, "metrics", "MetadataMetrics")],
    "TagValue": [(1, "type", "string"), (2, "value", "string")],
    "MetadataMetrics": [(1, "inspectedBytes", "u64"), (2, "totalJobs", "u32"),
                        (3, "completedJobs", "u32")],
    "QueryRangeRequest": [(1, "query", "string"), (2, "start", "u64"), (3, "end", "u64"),
                          (4, "step", "u64")],
    "QueryRangeResponse": [(4, "message", "string")],
    "QueryInstantRequest": [(1, "query", "string"), (2, "start", "u64"), (3, "end", "u64")],
    "QueryInstantResponse": [(4, "message", "string")],
}

METHODS = {
    "Search": ("SearchRequest", "SearchResponse"),
    "SearchTags": ("SearchTagsRequest", "SearchTagsResponse"),
    "SearchTagsV2": ("SearchTagsRequest", "SearchTagsV2Response"),
    "SearchTagValues": ("SearchTagValuesRequest", "SearchTagValuesResponse"),
    "SearchTagValuesV2": ("SearchTagValuesRequest", "SearchTagValuesV2Response"),
    "MetricsQueryRange": ("QueryRangeRequest", "QueryRangeResponse"),
    "MetricsQueryInstant": ("QueryInstantRequest", "QueryInstantResponse"),
}


def classes():
    file = descriptor_pb2.FileDescriptorProto(name="tempopb.proto", package="tempopb", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, *repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in TYPES:
                added.type = TYPES[kind]
            else:
                added.type, added.type_name = 11, f".tempopb.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tempopb.{name}"))
            for name in MESSAGES}


CLASSES = classes()


class Client:
    """Calls the methods; each gives a list of the messages of the stream."""

    def __init__(self, address, metadata=()):
        self.channel = grpc.insecure_channel(address)
        self.metadata = metadata

    def __call__(self, method, timeout=30, **fields):
        request, response = (CLASSES[name] for name in METHODS[method])
        call = self.channel.unary_stream(
            f"/tempopb.StreamingQuerier/{method}", request_serializer=request.SerializeToString,
            response_deserializer=response.FromString)
        return list(call(request(**fields), timeout=timeout, metadata=self.metadata))

    def close(self):
        self.channel.close()
