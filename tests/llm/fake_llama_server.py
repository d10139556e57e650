"""A stand-in for `llama-server`: its arguments, its key, /health, /props and completions.

FAKE_LLAMA is a folder: every start appends its arguments to `starts` there; `taken` makes so many
starts fail as if the port were taken, `loading` lets /health say 503 so often, and `broken`
makes starts fail for another reason.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_LLAMA"])
ARGUMENTS = sys.argv[1:]


def option(name: str) -> str:
    return ARGUMENTS[ARGUMENTS.index(name) + 1]


def count_down(name: str) -> bool:
    """Whether the number in a file was above 0, which it then is one less."""
    file = FOLDER / name
    left = int(file.read_text()) if file.exists() else 0
    if left:
        file.write_text(str(left - 1))
    return left > 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, payload: dict[str, Any]) -> None:
        data = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/health":
            status = 503 if count_down("loading") else 200
            return self.answer(status, {"status": "ok"})
        slots = int(option("--parallel"))
        # A build that shares the context between slots, less what it keeps for itself.
        context = {"n_ctx": int(option("--ctx-size")) // slots - 16}
        return self.answer(200, {"total_slots": slots, "default_generation_settings": context})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['LLAMA_API_KEY']}":
            return self.answer(401, {"error": {"message": "invalid key"}})
        asked = body["messages"][-1]["content"]
        if asked == "die":
            os._exit(3)
        said = {"message": {"role": "assistant", "content": f"{os.getpid()} {json.dumps(body)}"}}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        choices = [{"index": 0, "finish_reason": "stop", **said}]
        return self.answer(200, {"model": "fake", "choices": choices, "usage": usage})

    def log_message(self, format: str, *args: Any) -> None:
        print(f"{self.command} {self.path}", flush=True)


def main() -> None:
    with (FOLDER / "starts").open("a") as starts:
        starts.write(json.dumps([os.getpid(), *ARGUMENTS]) + "\n")
    if count_down("taken"):
        print("main: couldn't bind HTTP server socket, hostname: 127.0.0.1", flush=True)
        sys.exit(1)
    if count_down("broken"):
        print("error: failed to load model", flush=True)
        sys.exit(1)
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


main()
