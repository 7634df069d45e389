"""A proxy before an object store that fails a share of the requests, in the ways that stores fail: refuses
them, carries them out and fails then, breaks off in the middle of an answer, or lets them wait."""

import contextlib
import http.client
import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class FaultyStore:
    """Listens on `port` of every address; `share` of the requests fail."""

    def __init__(self, store_port, seed=1):
        self.share = 0.0
        self.faults = 0
        # Which requests are refused for good.
        self.denies = lambda request: False
        self.dice = random.Random(seed)
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Waiting for a small packet's answer before the next costs 40 ms.
            disable_nagle_algorithm = True

            def handle_one(self):
                proxy.handle(self, store_port)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                # Clients are killed in the middle of a request, that is the point.
                pass

        self.server = Server(("0.0.0.0", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    @contextlib.contextmanager
    def failing(self, share):
        self.share = share
        try:
            yield
        finally:
            self.share = 0.0

    def fault(self):
        with self.lock:
            if self.dice.random() >= self.share:
                return None
            self.faults += 1
            return self.dice.choice(["refuse", "fail after", "break off", "stall", "hang up"])

    def handle(self, request, store_port):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.denies(request):
            return answer(request, 403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        fault = self.fault()
        if fault == "refuse":
            return answer(request, 503, {}, b"<Error><Code>SlowDown</Code></Error>")
        if fault == "hang up":
            return hang_up(request)
        if fault == "stall":
            time.sleep(self.dice.uniform(0.5, 3))
        store = http.client.HTTPConnection("127.0.0.1", store_port, timeout=30)
        try:
            # The signature covers the host that the client was told.
            store.putrequest(request.command, request.path, skip_host=True,
                             skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in HOP:
                    store.putheader(name, value)
            store.putheader("Content-Length", str(len(body)))
            store.endheaders(body)
            found = store.getresponse()
            content = found.read()
            headers = {name: value for name, value in found.getheaders()
                       if name.lower() not in HOP}
            if request.command == "HEAD" and found.getheader("Content-Length"):
                headers["Content-Length"] = found.getheader("Content-Length")
        finally:
            store.close()
        if fault == "fail after":
            return answer(request, 500, {}, b"<Error><Code>InternalError</Code></Error>")
        if fault == "break off" and len(content) > 1:
            return answer(request, found.status, headers, content, sent=len(content) // 2)
        return answer(request, found.status, headers, content)


def answer(request, status, headers, content, sent=None):
    with contextlib.suppress(OSError):
        request.send_response_only(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content if sent is None else content[:sent])
        if sent is not None:
            hang_up(request)


def hang_up(request):
    request.close_connection = True
    with contextlib.suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)
