"""Prometheus' HTTP API with answers of a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Result = list[dict[str, Any]] | list[str] | str | bytes
"""Series, values of a label, the text of an error, or what a proxy says that wants a password first."""
Answers = Callable[[str, Mapping[str, str]], Result]
"""From path and parameters to the answer."""


@contextmanager
def serve(answers: Answers) -> Iterator[str]:
    """Listens while the block runs; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            self._answer(url.path, dict(parse_qsl(url.query)))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(self.path, dict(parse_qsl(body)))

        def _answer(self, path: str, parameters: Mapping[str, str]) -> None:
            result = answers(path, parameters)
            answer: dict[str, Any]
            if isinstance(result, bytes):
                self._send(401, result)
                return
            if isinstance(result, str):
                status, answer = 422, {"status": "error", "errorType": "execution", "error": result}
            elif "/label/" in path:
                status, answer = 200, {"status": "success", "data": result}
            else:
                kind = "matrix" if path.endswith("query_range") else "vector"
                status, answer = 200, {"status": "success", "data": {"resultType": kind, "result": result}}
            self._send(status, json.dumps(answer).encode())

        def _send(self, status: int, text: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
