// A client of @modelcontextprotocol/sdk that starts its server itself: the command is what the arguments say. What it
// gets goes to stdout in one line of JSON.
"use strict";

const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");

async function main() {
  const [command, ...args] = process.argv.slice(2);
  const client = new Client({ name: "application", version: "1" }, { capabilities: {} });
  await client.connect(new StdioClientTransport({ command, args, env: process.env }));
  const steps = [];
  const long = { name: "trigger-long-running-operation", arguments: { duration: 1, steps: 4 } };
  await client.callTool(long, undefined, { onprogress: ({ progress }) => steps.push(progress) });
  const seen = {
    server: client.getServerVersion().name,
    tools: (await client.listTools()).tools.map(({ name }) => name),
    prompts: (await client.listPrompts()).prompts.length,
    resources: (await client.listResources()).resources.length,
    echo: (await client.callTool({ name: "echo", arguments: { message: "Ørjan 猫" } })).content[0].text,
    sums: await Promise.all(
      Array.from({ length: 50 }, async (_, a) =>
        (await client.callTool({ name: "get-sum", arguments: { a, b: 1 } })).content[0].text,
      ),
    ),
    steps,
  };
  await client.close();
  process.stdout.write(JSON.stringify(seen) + "\n");
}

main();
