"""An MCP server over stdio with one tool: a program without dependencies, so that it starts at once."""

import json
import sys

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
INFO = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "echo", "version": "1"}}

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    match message["method"]:
        case "initialize":
            answer = {"result": INFO}
        case "tools/list":
            answer = {"result": {"tools": [{"name": "echo", "description": "says it again", "inputSchema": SCHEMA}]}}
        case "tools/call":
            answer = {"result": {"content": [{"type": "text", "text": f"echo: {message['params']['arguments'].get('text')}"}]}}
        case method:
            answer = {"error": {"code": -32601, "message": f"no method {method}"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
