// Sends one trace of two spans with the real SDK and prints its id.
// Arguments: the endpoint, `proto` or `json`, and `none` or `gzip`.
const { trace, context, SpanKind, SpanStatusCode } = require("@opentelemetry/api");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BasicTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-base");

const [url, encoding, compression] = process.argv.slice(2);
const module_ = encoding === "json" ? "http" : "proto";
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${module_}`);

let failed = null;
const exporter = new OTLPTraceExporter({ url, compression });
const send = exporter.export.bind(exporter);
exporter.export = (spans, done) => send(spans, (result) => {
  if (result.code !== 0) failed = result.error || new Error("the export failed");
  done(result);
});

const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ "service.name": "browser", "js.list": ["a", "b"] }),
  spanProcessors: [new BatchSpanProcessor(exporter)],
});
const tracer = provider.getTracer("web-lib", "3.2.1");
const root = tracer.startSpan("click", {
  kind: SpanKind.CLIENT,
  attributes: { "js.int": 42, "js.float": 1.5, "js.bool": true, "js.text": "naïve 🚀", "js.many": [1, 2, 3] },
});
const child = tracer.startSpan("fetch", {}, trace.setSpan(context.active(), root));
child.addEvent("retry", { attempt: 2 });
child.recordException(new TypeError("no network"));
child.setStatus({ code: SpanStatusCode.ERROR, message: "gave up" });
child.end();
root.end();
provider.forceFlush().then(() => provider.shutdown()).then(() => {
  if (failed) throw failed;
  console.log(root.spanContext().traceId);
}).catch((error) => {
  console.error(error);
  process.exit(1);
});
