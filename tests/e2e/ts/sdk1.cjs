// An application of @modelcontextprotocol/sdk, the 1.x line.
"use strict";

const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { SSEClientTransport } = require("@modelcontextprotocol/sdk/client/sse.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const types = require("@modelcontextprotocol/sdk/types.js");
const { serve } = require("./common.cjs");

const SCHEMAS = {
  "sampling/createMessage": types.CreateMessageRequestSchema,
  "elicitation/create": types.ElicitRequestSchema,
  "roots/list": types.ListRootsRequestSchema,
  "notifications/message": types.LoggingMessageNotificationSchema,
  "notifications/tools/list_changed": types.ToolListChangedNotificationSchema,
  "notifications/prompts/list_changed": types.PromptListChangedNotificationSchema,
  "notifications/resources/updated": types.ResourceUpdatedNotificationSchema,
};

serve({
  make: () =>
    new Client(
      { name: "application", version: "1" },
      { capabilities: { sampling: {}, elicitation: {}, roots: { listChanged: true } } },
    ),
  transport: (url, fetch) =>
    url.pathname === "/sse"
      ? new SSEClientTransport(url, { fetch })
      : new StreamableHTTPClientTransport(url, { fetch }),
  // That of the older transport keeps it to itself.
  version: (_, transport) => transport.protocolVersion ?? transport._protocolVersion,
  on: (client, method, handler) =>
    method.startsWith("notifications/")
      ? client.setNotificationHandler(SCHEMAS[method], handler)
      : client.setRequestHandler(SCHEMAS[method], handler),
  call: (client, params, options) => client.callTool(params, undefined, options),
});
