// What both SDKs are asked to do, and how a test talks with them: commands come as lines of JSON on stdin, and what the
// application sees goes out as lines of JSON on stdout. The end of stdin ends the application.
"use strict";

const { randomUUID } = require("node:crypto");
const readline = require("node:readline");

const { Busy } = require("./busy.cjs");

const WATCHED = "test://watched-resource";
const MODERN = "2026-07-28";

const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

/** What an application sees beside the results that it asked for. */
class Seen {
  constructor() {
    this.lists = { logs: [], changes: [], asked: [], progress: [] };
    this.waiting = [];
    this.listens = false;
  }

  add(list, what) {
    this.lists[list].push(what);
    this.wake();
  }

  wake() {
    this.waiting = this.waiting.filter(({ ready, resolve }) => (ready() ? resolve() : true));
  }

  until(ready) {
    return ready()
      ? Promise.resolve()
      : new Promise((resolve) => this.waiting.push({ ready, resolve: () => void resolve() }));
  }

  /** The first so many of a list, which begins anew. */
  async take(list, count) {
    await this.until(() => this.lists[list].length >= count);
    return this.lists[list].splice(0);
  }
}

/**
 * `sdk` says where the two differ: make(version), transport(url, fetch), version(client, transport), on(client, method,
 * handler), call(client, params, options).
 */
async function serve(sdk) {
  const [url, version] = process.argv.slice(2);
  const seen = new Seen();
  const client = sdk.make(version);
  const transport = sdk.transport(new URL(url), async (where, init) => {
    const response = await fetch(where, init);
    if ((init?.method ?? "GET") === "GET") {
      seen.listens ||= response.ok;
      seen.wake();
      tell({ get: response.status });
    }
    return response;
  });
  answer(sdk, client, seen);
  await client.connect(transport);
  const agreed = sdk.version(client, transport);
  tell({ connected: agreed });
  const app = { sdk, client, seen, isModern: agreed === MODERN, transport, busy: new Busy(sdk, url, version) };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    obey(app, JSON.parse(line));
  }
  await transport.terminateSession?.();
  await client.close();
}

/** Answers what the server asks, and keeps what it tells. */
function answer(sdk, client, seen) {
  sdk.on(client, "sampling/createMessage", async ({ params }) => {
    seen.add("asked", { sampling: params.messages });
    return { role: "assistant", model: "test-model", content: { type: "text", text: "Paris" } };
  });
  sdk.on(client, "elicitation/create", async ({ params }) => {
    seen.add("asked", { elicitation: params.requestedSchema });
    return { action: "accept", content: { name: "Ada", username: "ada", email: "ada@example.org" } };
  });
  sdk.on(client, "roots/list", async () => ({ roots: [{ uri: "file:///work", name: "work" }] }));
  sdk.on(client, "notifications/message", ({ params }) => seen.add("logs", [params.level, params.data]));
  for (const what of ["tools/list_changed", "prompts/list_changed", "resources/updated"]) {
    sdk.on(client, `notifications/${what}`, ({ params }) => seen.add("changes", [what, params?.uri]));
  }
}

async function obey(app, { id, does, ...given }) {
  try {
    tell({ id, got: await ACTIONS[does](app, given) });
  } catch (error) {
    tell({ id, failed: String(error?.stack ?? error) });
  }
}

const ACTIONS = {
  call: (app, { name, args }) => says(app, name, args),
  fails: async (app, { name }) => (await errorOf(call(app, name))).code,
  level: ({ client }, { level }) => client.setLoggingLevel(level),
  subscribe: ({ client }, { uri }) => client.subscribeResource({ uri }),
  feature: (app, { name }) => (app.isModern ? MODERN_FEATURES : LEGACY_FEATURES)[name](app),
  get_busy: ({ busy }, { sessions, plans }) => busy.begin(sessions, plans),
  rest: ({ busy }) => busy.rest(),
  report: ({ busy }, { emitted }) => busy.report(emitted),
  features: ({ isModern }) => Object.keys(isModern ? MODERN_FEATURES : LEGACY_FEATURES),
};

const call = ({ sdk, client, seen }, name, args = {}, options = {}) =>
  sdk.call(
    client,
    { name, arguments: args },
    {
      onprogress: ({ progress, total, message }) => {
        seen.add("progress", [progress, total, message]);
        tell({ progress });
      },
      ...options,
    },
  );

const says = async (app, name, args) => (await call(app, name, args)).content[0].text;

const errorOf = async (promise) => {
  try {
    return { unexpected: await promise };
  } catch ({ code, message, data }) {
    return { code, message, data };
  }
};

const FEATURES = {
  handshake: ({ client, sdk, transport }) => [
    sdk.version(client, transport),
    client.getServerVersion(),
    client.getServerCapabilities(),
    client.getInstructions(),
  ],
  tools_list: ({ client }) => client.listTools(),
  tools_call: async (app) => ({
    plain: await call(app, "test_simple_text"),
    image: await call(app, "test_image_content"),
    audio: await call(app, "test_audio_content"),
    embedded: await call(app, "test_embedded_resource"),
    several: await call(app, "test_multiple_content_types"),
    greeted: await says(app, "greet", { name: "Ørjan “quoted” 猫 " + "x".repeat(50_000) }),
  }),
  tools_that_fail: async (app) => ({
    failed: await call(app, "test_error_handling"),
    unknown: await errorOf(call(app, "no_such_tool")),
    internal: await errorOf(call(app, "protocol_error_job")),
  }),
  tools_at_once: (app) =>
    Promise.all(Array.from({ length: 20 }, (_, number) => says(app, "greet", { name: `${number}` }))),
  resources: async ({ client }) => ({
    list: await client.listResources(),
    text: await client.readResource({ uri: "test://static-text" }),
    binary: await client.readResource({ uri: "test://static-binary" }),
    missing: await errorOf(client.readResource({ uri: "test://nowhere" })),
  }),
  resource_templates: async ({ client }) => ({
    list: await client.listResourceTemplates(),
    read: await client.readResource({ uri: "test://template/7/data" }),
  }),
  prompts: async ({ client }) => ({
    list: await client.listPrompts(),
    simple: await client.getPrompt({ name: "test_simple_prompt" }),
    filled: await client.getPrompt({
      name: "test_prompt_with_arguments",
      arguments: { arg1: "one", arg2: "zwei ü" },
    }),
    unknown: await errorOf(client.getPrompt({ name: "no_such_prompt" })),
  }),
  completion: async ({ client }) => ({
    prompt: await client.complete({
      ref: { type: "ref/prompt", name: "test_prompt_with_arguments" },
      argument: { name: "arg1", value: "par" },
    }),
    template: await client.complete({
      ref: { type: "ref/resource", uri: "test://template/{id}/data" },
      argument: { name: "id", value: "test" },
    }),
  }),
  progress: async (app) => {
    app.seen.lists.progress = [];
    return [await says(app, "test_tool_with_progress"), await app.seen.take("progress", 3)];
  },
  cancellation: async (app) => {
    const key = randomUUID();
    const stop = new AbortController();
    const ended = errorOf(call(app, "hold", { key }, { signal: stop.signal }));
    await says(app, "started", { key });
    stop.abort("the user changed their mind");
    return { error: (await ended).message, fate: await says(app, "fate", { key }) };
  },
  cancellation_by_timeout: async (app) => {
    const key = randomUUID();
    const { code, message } = await errorOf(call(app, "hold", { key }, { timeout: 300 }));
    return { code, message, fate: await says(app, "fate", { key }) };
  },
};

const LEGACY_FEATURES = {
  ...FEATURES,
  ping: ({ client }) => client.ping(),
  sampling: async (app) => [await says(app, "test_sampling", { prompt: "Capital?" }), await app.seen.take("asked", 1)],
  elicitation: async (app) => [
    await says(app, "test_elicitation", { message: "Who?" }),
    await app.seen.take("asked", 1),
  ],
  elicitation_schemas: async (app) => [
    await says(app, "test_elicitation_sep1034_defaults"),
    await says(app, "test_elicitation_sep1330_enums"),
    await app.seen.take("asked", 2),
  ],
  roots: (app) => says(app, "ask_roots", { standalone: false }),
  roots_list_changed: async (app) => {
    await app.client.sendRootsListChanged();
    return says(app, "roots_changed");
  },
  standalone_stream: async (app) => {
    await app.seen.until(() => app.seen.listens);
    return [await says(app, "ask_roots", { standalone: true }), await says(app, "ask_ping", { standalone: true })];
  },
  logging: async (app) => {
    await app.client.setLoggingLevel("error");
    await call(app, "test_logging_tool");
    await app.client.setLoggingLevel("info");
    await call(app, "test_tool_with_logging");
    return app.seen.take("logs", 3);
  },
  list_changed: async (app) => {
    await app.seen.until(() => app.seen.listens);
    await call(app, "test_trigger_tool_change");
    await call(app, "test_trigger_prompt_change");
    return app.seen.take("changes", 2);
  },
  subscriptions: async (app) => {
    await app.seen.until(() => app.seen.listens);
    await app.client.subscribeResource({ uri: WATCHED });
    const subscribed = await says(app, "touch", { uri: WATCHED });
    const changes = await app.seen.take("changes", 1);
    await app.client.unsubscribeResource({ uri: WATCHED });
    return [subscribed, changes, await says(app, "touch", { uri: WATCHED })];
  },
};

const MODERN_FEATURES = {
  ...FEATURES,
  tools_argument_in_a_header: async (app) => {
    await app.client.listTools();
    return says(app, "test_custom_header", { region: "Tromsø" });
  },
  sampling: async (app) => [
    await says(app, "test_input_required_result_sampling"),
    await app.seen.take("asked", 1),
  ],
  elicitation: async (app) => [
    await says(app, "test_input_required_result_elicitation"),
    await app.seen.take("asked", 1),
  ],
  roots: (app) => says(app, "test_input_required_result_list_roots"),
  input_rounds: async (app) => [
    await says(app, "test_input_required_result_multiple_inputs"),
    await says(app, "test_input_required_result_request_state"),
    await says(app, "test_input_required_result_tampered_state"),
  ],
  logging: async (app) => {
    const params = { name: "test_tool_with_logging", arguments: {}, _meta: { "io.modelcontextprotocol/logLevel": "info" } };
    await app.sdk.call(app.client, params, {});
    return app.seen.take("logs", 3);
  },
  list_changed: async (app) => {
    const subscription = await app.client.listen({ toolsListChanged: true, promptsListChanged: true });
    await call(app, "test_trigger_tool_change");
    await call(app, "test_trigger_prompt_change");
    const changes = await app.seen.take("changes", 2);
    await subscription.close();
    return changes;
  },
  subscriptions: async (app) => {
    const subscription = await app.client.listen({ resourceSubscriptions: [WATCHED] });
    await call(app, "touch", { uri: "test://other" });
    await call(app, "touch", { uri: WATCHED });
    const changes = await app.seen.take("changes", 1);
    await subscription.close();
    return changes;
  },
};

module.exports = { serve, MODERN };
