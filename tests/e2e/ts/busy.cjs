// Sessions that call one tool after the other, and keep what each call and the standalone stream brought.
"use strict";

const PATIENCE_MS = 120_000;

class Customer {
  constructor(sdk, url, version, name) {
    this.name = name;
    this.sdk = sdk;
    this.calls = [];
    this.logs = [];
    this.asked = [];
    this.client = sdk.make(version);
    this.listening = new Promise((resolve) => (this.listens = resolve));
    this.transport = sdk.transport(new URL(url), async (where, init) => {
      const response = await fetch(where, init);
      if ((init?.method ?? "GET") === "GET" && response.ok) {
        this.listens();
      }
      return response;
    });
  }

  async begin() {
    this.sdk.on(this.client, "elicitation/create", async ({ params }) => {
      this.asked.push(params.message);
      return { action: "accept", content: {} };
    });
    this.sdk.on(this.client, "notifications/message", ({ params }) => this.logs.push(params.data.n));
    await this.client.connect(this.transport);
    await this.listening;
  }

  async work(plans, isOver) {
    while (!isOver()) {
      await this.call({ label: `${this.name}-${this.calls.length}`, ...plans[this.calls.length % plans.length] });
    }
  }

  async call(plan) {
    const call = { plan, heard: [], told: null, failed: null };
    this.calls.push(call);
    try {
      const options = { onprogress: ({ progress }) => call.heard.push(progress), timeout: PATIENCE_MS };
      const params = { name: "count", arguments: plan };
      call.told = (await this.sdk.call(this.client, params, options)).structuredContent;
    } catch (error) {
      call.failed = String(error?.stack ?? error);
    }
  }

  async heardUpTo(number) {
    const until = Date.now() + PATIENCE_MS;
    while (this.logs.at(-1) !== number && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  report() {
    const calls = this.calls.map((call) => ({ ...call, heard: span(call.heard) }));
    return { name: this.name, calls, logs: span(this.logs), asked: this.asked };
  }
}

/** Of numbers without a gap only the first and the last. */
const span = (numbers) =>
  numbers.length && numbers.every((number, index) => number === numbers[0] + index) ? [numbers[0], numbers.at(-1)] : numbers;

class Busy {
  constructor(sdk, url, version) {
    this.make = (name) => new Customer(sdk, url, version, name);
    this.customers = [];
    this.isOver = false;
  }

  async begin(names, plans) {
    for (const name of names) {
      const customer = this.make(name);
      this.customers.push(customer);
      await customer.begin();
    }
    this.working = Promise.all(this.customers.map((customer) => customer.work(plans, () => this.isOver)));
  }

  /** Lets the calls that run come to their end. */
  async rest() {
    this.isOver = true;
    await this.working;
  }

  /** What each has heard, to the last that was said on its standalone stream. */
  async report(emitted) {
    await Promise.all(this.customers.map((customer) => customer.heardUpTo(emitted)));
    const reports = this.customers.map((customer) => customer.report());
    for (const { transport, client } of this.customers) {
      await transport.terminateSession();
      await client.close();
    }
    return reports;
  }
}

module.exports = { Busy };
