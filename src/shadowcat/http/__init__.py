"""An HTTP/1.1 engine on llhttp and asyncio protocols: a server and a pooled client. It knows nothing of MCP."""
