// The client of AG-UI, driven by lines of JSON: a command on standard input, its answer on standard output.
import { createInterface } from "node:readline";
import { HttpAgent } from "@ag-ui/client";

const [, , url, token] = process.argv;
const agents = new Map();
const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const warnings = [];
for (const name of ["warn", "error", "log"]) console[name] = (...words) => warnings.push(words.map(String).join(" "));
// The client cancels the body of a connection that was reset, and does not handle that this fails.
process.on("unhandledRejection", (error) => { if (error?.message !== "terminated") throw error; });
const print = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

function listen(events) {
  return { onEvent: ({ event }) => { events.push(event); } };
}

const commands = {
  open({ agent, id, path = "", messages = [] }) {
    const made = new HttpAgent({ url: `${url}${path}`, headers: { authorization: `Bearer ${token}` }, threadId: id, initialMessages: messages });
    const log = { events: [], errors: [] };
    made.subscribe(listen(log.events));
    agents.set(agent, { made, log, running: undefined });
  },
  // Run the agent, with a new message if there is one, and wait for the end of the run unless `wait` is false.
  async run({ agent, text, messageId, resume, wait = true }) {
    const entry = agents.get(agent);
    if (text !== undefined) entry.made.addMessage({ id: messageId ?? crypto.randomUUID(), role: "user", content: text });
    entry.running = entry.made.runAgent(resume ? { resume } : {}).catch((error) => entry.log.errors.push(String(error)));
    if (wait) await entry.running;
  },
  async until({ agent, text }) {
    const { made } = agents.get(agent);
    while (!made.messages.some((message) => String(message.content ?? "").includes(text))) await delay(2);
  },
  async ended({ agent }) {
    await agents.get(agent).running;
  },
  disconnect({ agent }) {
    agents.get(agent).made.abortRun();
  },
  async stop({ agent, turnId }) {
    const { made } = agents.get(agent);
    const answer = await fetch(`${url}/stop`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ threadId: made.threadId, ...(turnId ? { turnId } : {}) }),
    });
    return { answer: await answer.json() };
  },
  state() {},
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = (await commands[command.do](command)) ?? {};
  } catch (error) {
    answer = { failed: String(error?.stack ?? error) };
  }
  const entry = agents.get(command.agent);
  if (entry) {
    const { messages, state, pendingInterrupts } = entry.made;
    answer = { ...answer, messages, state, pendingInterrupts, ...entry.log, warnings };
  }
  print(answer);
}
