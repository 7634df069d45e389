"""Sends a minute of traces of a small web shop, as its services would: one OpenTelemetry SDK tracer
provider per service, gRPC for some and HTTP for others, errors, exceptions and slow dependencies.

Usage: shop.py [--seconds 60] [--rate 5] [--grpc localhost:4317] [--http http://localhost:4318]
"""

import argparse
import random
import sys
import time

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

SERVICES = ["frontend", "cart", "catalog", "checkout", "payment", "shipping", "email"]
PRODUCTS = ["OLJCESPC7Z", "66VCHSJNUP", "1YMWWN1N4O", "L9ECAV7KIM", "2ZYFJ3GM2N"]


class Service:
    """One service: its own resource, exporter and tracer."""

    def __init__(self, name, number, options):
        resource = Resource.create({
            "service.name": name,
            "service.namespace": "shop",
            "service.version": f"1.{number}.0",
            "service.instance.id": f"{name}-{number}",
            "deployment.environment.name": "demo",
            "k8s.namespace.name": "shop",
            "k8s.pod.name": f"{name}-7d9c5-{number}",
        })
        if number % 2:
            exporter = HttpExporter(endpoint=options.http + "/v1/traces")
        else:
            exporter = GrpcExporter(endpoint=options.grpc, insecure=True)
        self.provider = TracerProvider(resource=resource)
        self.provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
        self.tracer = self.provider.get_tracer("shop." + name, "1.0")

    def serve(self, name, headers, attributes):
        return self.tracer.start_as_current_span(
            name, context=propagate.extract(headers), kind=SpanKind.SERVER, attributes=attributes)

    def call(self, name, attributes):
        return self.tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes)


class Shop:
    """The call graph. Durations are simulated by setting nothing: the work really waits."""

    def __init__(self, options):
        self.random = random.Random(options.seed)
        self.services = {
            name: Service(name, number, options) for number, name in enumerate(SERVICES)}

    def wait(self, mean_ms):
        time.sleep(min(self.random.expovariate(1 / mean_ms), mean_ms * 8) / 1000)

    def headers(self):
        carrier = {}
        propagate.inject(carrier)
        return carrier

    def rpc(self, caller, callee, method, work):
        """A call from one service to another: a client span and a server span."""
        attributes = {"rpc.system": "grpc", "rpc.service": f"shop.{callee}", "rpc.method": method}
        with self.services[caller].call(f"shop.{callee}/{method}", attributes) as client:
            try:
                with self.services[callee].serve(
                        f"shop.{callee}/{method}", self.headers(), attributes):
                    self.wait(2)
                    work()
            except RuntimeError as error:
                client.set_status(Status(StatusCode.ERROR, str(error)))
                raise

    def query(self, service, system, statement, mean_ms):
        attributes = {
            "db.system.name": system, "db.query.text": statement,
            "server.address": f"{system}.shop.svc", "db.operation.name": statement.split()[0]}
        with self.services[service].call(f"{statement.split()[0]} {system}", attributes):
            self.wait(mean_ms)

    def charge(self):
        amount = round(self.random.lognormvariate(3.5, 0.8), 2)
        with self.services["payment"].call(
                "POST /v1/charges", {"http.request.method": "POST", "payment.amount": amount,
                                     "server.address": "api.cards.example"}) as span:
            self.wait(12)
            if self.random.random() < 0.06:
                span.set_attribute("http.response.status_code", 402)
                raise RuntimeError("card refused")
            span.set_attribute("http.response.status_code", 200)

    def browse(self):
        product = self.random.choice(PRODUCTS)
        self.rpc("frontend", "catalog", "GetProduct", lambda: self.query(
            "catalog", "postgresql", "SELECT * FROM products WHERE id = $1", 4))
        return {"app.product.id": product}

    def order(self):
        def place():
            self.rpc("checkout", "cart", "GetCart", lambda: self.query(
                "cart", "redis", "HGETALL cart", 1))
            self.rpc("checkout", "payment", "Charge", self.charge)
            self.rpc("checkout", "shipping", "Ship", lambda: self.query(
                "shipping", "postgresql", "INSERT INTO parcels VALUES ($1, $2)", 6))
            self.rpc("checkout", "email", "SendConfirmation", lambda: self.wait(5))

        self.rpc("frontend", "checkout", "PlaceOrder", place)
        return {"app.order.items": self.random.randint(1, 9)}

    def request(self):
        """One visitor's request at the front door."""
        name, route, work = self.random.choices(
            [("GET", "/product/{id}", self.browse), ("POST", "/checkout", self.order)], [3, 1])[0]
        user = f"user-{self.random.randint(1, 5000)}"
        with self.services["frontend"].serve(
                f"{name} {route}", {}, {"http.request.method": name, "http.route": route,
                                        "user.id": user}) as span:
            try:
                span.set_attributes(work())
                span.set_attribute("http.response.status_code", 200)
            except RuntimeError as error:
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                span.set_attribute("http.response.status_code", 500)
            return format(span.get_span_context().trace_id, "032x")

    def close(self):
        for service in self.services.values():
            service.provider.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=5, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grpc", default="localhost:4317")
    parser.add_argument("--http", default="http://localhost:4318")
    options = parser.parse_args()
    shop = Shop(options)
    until = time.monotonic() + options.seconds
    sent, last = 0, ""
    while time.monotonic() < until:
        started = time.monotonic()
        last = shop.request()
        sent += 1
        if sent % 25 == 0:
            print(f"{sent} traces, last {last}", flush=True)
        time.sleep(max(0.0, 1 / options.rate - (time.monotonic() - started)))
    shop.close()
    print(f"sent {sent} traces. Try:\n"
          f"  curl localhost:3200/api/traces/{last}\n"
          "  curl -G localhost:3200/api/search --data-urlencode "
          "'q={ resource.service.name = \"payment\" && status = error }'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
