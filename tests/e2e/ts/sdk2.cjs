// An application of @modelcontextprotocol/client, the 2.x line of the TypeScript SDK.
"use strict";

const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
const { serve, MODERN } = require("./common.cjs");

serve({
  make: (version) =>
    new Client(
      { name: "application", version: "1" },
      {
        capabilities: { sampling: {}, elicitation: {}, roots: { listChanged: true } },
        ...(version === MODERN
          ? { versionNegotiation: { mode: "auto" } }
          : { supportedProtocolVersions: [version] }),
      },
    ),
  transport: (url, fetch) => new StreamableHTTPClientTransport(url, { fetch }),
  version: (client) => client.getNegotiatedProtocolVersion(),
  on: (client, method, handler) =>
    method.startsWith("notifications/")
      ? client.setNotificationHandler(method, handler)
      : client.setRequestHandler(method, handler),
  call: (client, params, options) => client.callTool(params, options),
});
