"""A server that answers from a recording and records what it is asked."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Call:
    """A request: header names without Host, body as JSON."""

    method: str
    path: str
    headers: tuple[str, ...]
    body: str

    @staticmethod
    def of(entry: dict[str, Any]) -> Call:
        """The request of a recorded entry."""
        return Call(entry["method"], entry["path"], tuple(sorted(entry["headers"])), _text(entry["body"]))


def _text(body: Any) -> str:
    return json.dumps(body, sort_keys=True)


class Recording:
    """Answers each request with the next recorded answer to its method and path; the last one repeats."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls: list[Call] = []
        self.sent: list[tuple[dict[str, str], str]] = []
        """Headers and body of each call, as they came."""
        self._answers: dict[tuple[str, str], deque[tuple[int, str]]] = defaultdict(deque)

    def load(self, entries: Sequence[dict[str, Any]]) -> None:
        """Forgets calls and answers; answers from `entries` from now on."""
        self.calls.clear()
        self.sent.clear()
        self._answers.clear()
        for entry in entries:
            self.answer(entry["method"], entry["path"], entry["status"], entry["response"])

    def answer(self, method: str, path: str, status: int, response: Any) -> None:
        """Adds an answer."""
        text = "" if response is None else json.dumps(response)
        # Addresses in answers lead to the server that recorded them.
        text = text.replace("http://127.0.0.1:18998", self.address)
        self._answers[method, path].append((status, text))

    def replace(self, method: str, path: str, status: int, response: Any) -> None:
        """Answers so from now on, whatever was loaded."""
        self._answers[method, path].clear()
        self.answer(method, path, status, response)

    def next(self, method: str, path: str) -> tuple[int, str]:
        """Status and body of the answer."""
        answers = self._answers.get((method, path))
        if not answers:
            return 501, json.dumps({"class": "Test::NotRecorded", "message": f"{method} {path}"})
        return answers.popleft() if len(answers) > 1 else answers[0]


@contextmanager
def recording() -> Iterator[Recording]:
    """A server on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: with two, the second waits for a delayed acknowledgement

        def do(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            sent = self.rfile.read(length).decode()
            names = tuple(sorted(name for name in self.headers if name != "Host"))
            body = _text(json.loads(sent)) if sent else "null"
            recorder.calls.append(Call(self.command, self.path, names, body))
            recorder.sent.append((dict(self.headers.items()), sent))
            status, text = recorder.next(self.command, self.path)
            content = text.encode()
            self.send_response(status)
            self.send_header("X-Subject-Token", "keystone-token")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    recorder = Recording(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
