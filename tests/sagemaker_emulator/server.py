"""SageMaker's JSON protocol over HTTP, and a proxy before moto that can cut and refuse."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .faults import Faults
from .service import Service
from .validation import ApiError

S3_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
    "<RequestId>EMULATED</RequestId><HostId>EMULATED</HostId></Error>"
)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with bodies read whole, and silent."""

    protocol_version = "HTTP/1.1"
    # answers are small and in two writes: Nagle's algorithm would hold the second back
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def body(self, most: int | None = None) -> bytes:
        """The request's body, or no more than its first bytes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunks(most)
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length if most is None else min(most, length))

    def _chunks(self, most: int | None) -> bytes:
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            if most is not None:
                return b"".join(parts)
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class SageMakerHandler(Handler):
    """``service`` is set on a subclass by :func:`serve`."""

    service: Service

    def do_POST(self) -> None:
        raw = self.body()
        operation = self.headers.get("X-Amz-Target", "").removeprefix("SageMaker.")
        status, answer = 200, None
        try:
            answer = self.service.call(operation, json.loads(raw or b"{}"))
        except ApiError as error:
            status, answer = 400, {"__type": error.code, "message": error.message}
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "x-amzn-RequestId": str(uuid.uuid4()),
        }
        self.answer(status, json.dumps(answer).encode() if answer else b"", headers)


class ProxyHandler(Handler):
    """S3 and CloudWatch Logs as the code under test sees them."""

    faults: Faults
    moto: tuple[str, int]

    def _pass(self) -> None:
        target = self.headers.get("X-Amz-Target", "")
        if target.startswith("Logs_"):
            refusal = self._logs_refusal(target)
        else:
            refusal = self._s3_refusal()
        upload = self.command == "PUT" and self._length() > 0
        if refusal is None and upload and self._hit("uploads", self.faults.cut_uploads):
            self.body(max(1, self._length() // 2))
            return self.cut()
        body = self.body()
        if refusal is not None:
            status, kind, text = refusal
            shown = b"" if self.command == "HEAD" else text.encode()
            return self.answer(status, shown, {"Content-Type": kind})
        self._forward(body)

    def _length(self) -> int:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return 1
        return int(self.headers.get("Content-Length") or 0)

    def _hit(self, what: str, numbers) -> bool:
        return bool(numbers) and self.faults.count(what) in numbers

    def _logs_refusal(self, target: str):
        if not self.faults.logs_denied:
            return None
        action = f"logs:{target.rpartition('.')[2]}"
        text = f"User: arn:aws:iam::123456789012:user/tester is not authorized to perform: {action}"
        error = {"__type": "AccessDeniedException", "message": text}
        return 400, "application/x-amz-json-1.1", json.dumps(error)

    def _s3_refusal(self):
        request = f"{self.command} {urllib.parse.unquote(self.path)}"
        if self.faults.s3_expired:
            status, code, text = 400, "ExpiredToken", "The provided token has expired."
        elif any(part in request for part in self.faults.s3_denied):
            status, code, text = 403, "AccessDenied", "Access Denied"
        else:
            return None
        return status, "application/xml", S3_ERROR.format(code=code, message=text)

    def _forward(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(*self.moto, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in HOP_BY_HOP}
        kept = {k: v for k, v in kept.items() if k.lower() not in ("server", "date")}
        if self.command == "HEAD" and response.getheader("Content-Length"):
            kept["Content-Length"] = response.getheader("Content-Length")
        of_object = self.path.partition("?")[0].strip("/").count("/") > 0
        download = self.command == "GET" and of_object and response.status < 300
        cut = download and self._hit("downloads", self.faults.cut_downloads)
        connection.close()
        if cut:
            kept["Content-Length"] = str(len(content))
            self.answer(response.status, content[: len(content) // 2], kept)
            return self.cut()
        self.answer(response.status, content, kept)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away are part of the game


def serve(handler: type[Handler], **attributes: Any) -> tuple[Server, str]:
    """Serve on a free port; return the server and its address."""
    bound = type(handler.__name__, (handler,), attributes)
    server = Server(("127.0.0.1", 0), bound)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"
