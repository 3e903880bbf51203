"""A server over stdio that does what no server should: a program without dependencies, so that it starts at once.

Its tools say what it does. `--stubborn` ignores the end of its input and SIGTERM; `--mute` answers nothing; `--junk` writes what
is no message; `--child` starts a child of its own, whose id it tells; `--time` has a tool of the real server in the tests.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

TOOLS = ["echo", "crash", "hang", "env", "noise", "flood", "pid", "change"]
later = ["convert_time"] if "--time" in sys.argv else []


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def listing():
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    names = [*TOOLS, *later]
    return {"tools": [{"name": name, "description": f"does {name}", "inputSchema": schema} for name in names]}


def call(name, arguments):
    match name:
        case "echo":
            return arguments.get("text", "")
        case "crash":
            os._exit(3)
        case "convert_time":
            return '{"time_difference": "+9.0h"}'
        case "hang":
            if "text" in arguments:
                pathlib.Path(arguments["text"]).touch()  # so that a test that waits for the file continues
            return None
        case "env":
            return json.dumps(dict(os.environ))
        case "noise":
            for _ in range(2000):
                print("noise " + os.environ.get("SECRET", ""), file=sys.stderr)
            sys.stderr.flush()
            return "made"
        case "flood":
            sys.stdout.write("x" * (17 * 1024 * 1024))
            sys.stdout.flush()
            return None
        case "pid":
            return " ".join(map(str, [os.getpid(), *children]))
        case "change":
            later.append(f"new-{len(later)}")
            say({"method": "notifications/tools/list_changed"})
            return "changed"
        case _:
            return f"{name} is new"


def serve():
    cancelled = []
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if method == "notifications/cancelled":
            cancelled.append(params["requestId"])
        if "id" not in message or "--mute" in sys.argv:
            continue
        match method:
            case "initialize":
                info = {"name": "rude", "version": "1"}
                tools = {"listChanged": True}
                result = {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": tools},
                    "serverInfo": info,
                    "instructions": "Be brief.",
                }
            case "tools/list":
                result = listing()
            case "tools/call" if params["name"] == "echo" and (params.get("arguments") or {}).get("text") == "cancelled?":
                result = {"content": [{"type": "text", "text": f"{len(cancelled)} cancelled"}]}
            case "tools/call":
                text = call(params["name"], params.get("arguments") or {})
                if text is None:
                    continue
                result = {"content": [{"type": "text", "text": text}]}
            case _:
                say({"id": message["id"], "error": {"code": -32601, "message": f"no method {method}"}})
                continue
        say({"id": message["id"], "result": result})


children = []
if "--child" in sys.argv:
    children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)  # holds our pipes, too
if "--junk" in sys.argv:
    print('starting up...\n\n{"not": "a message"}', flush=True)
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
serve()
while "--stubborn" in sys.argv:
    time.sleep(600)
