// The Vercel AI SDK's own client, driven by lines of JSON: a command on standard input, its answer on standard output.
import { createInterface } from "node:readline";
import { Chat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";

const [, , api, token] = process.argv;
const headers = { authorization: `Bearer ${token}` };
const chats = new Map();
const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function open({ chat, id, messages = [], automatic = true, requests = 20 }) {
  const log = { errors: [], finishes: [], data: [], requests: 0 };
  const transport = new DefaultChatTransport({
    api,
    headers,
    fetch: (url, init) => {
      log.requests += 1;
      if (log.requests > requests) throw new Error("the client sends again and again");
      return fetch(url, init);
    },
    prepareReconnectToStreamRequest: ({ id, body }) => ({
      api: `${api}/${encodeURIComponent(id)}/stream${body?.turn ? `?turn=${body.turn}` : ""}`,
    }),
  });
  const made = new Chat({
    id,
    messages,
    transport,
    sendAutomaticallyWhen: automatic ? lastAssistantMessageIsCompleteWithApprovalResponses : undefined,
    onError: (error) => log.errors.push(`${error.name}: ${error.message}`),
    onFinish: ({ isAbort, isDisconnect, isError, finishReason }) => log.finishes.push({ isAbort, isDisconnect, isError, finishReason }),
    onData: (part) => log.data.push(part.type),
  });
  chats.set(chat, { made, log });
}

async function idle({ made }) {
  while (made.status === "submitted" || made.status === "streaming") await delay(5);
}

const textOf = (message) => (message?.parts ?? []).filter((part) => part.type === "text").map((part) => part.text).join("");

const commands = {
  open,
  // Send a message, and wait for the end of the response unless `wait` is false.
  async send({ chat, text, messageId, wait = true }) {
    const { made } = chats.get(chat);
    const sent = made.sendMessage({ parts: [{ type: "text", text }], ...(messageId ? { id: messageId } : {}) });
    if (wait) await sent;
  },
  // Wait until the last message of the assistant holds a text.
  async until({ chat, text }) {
    const { made } = chats.get(chat);
    while (!textOf(made.lastMessage).includes(text)) await delay(2);
  },
  async idle({ chat }) {
    await idle(chats.get(chat));
  },
  async approve({ chat, approved, reason }) {
    const entry = chats.get(chat);
    for (const part of entry.made.messages.flatMap((message) => message.parts)) {
      if (part.state === "approval-requested") {
        await entry.made.addToolApprovalResponse({ id: part.approval.id, approved, reason });
      }
    }
    await delay(50);
    await idle(entry);
  },
  async answer({ chat, output }) {
    const entry = chats.get(chat);
    for (const part of entry.made.messages.flatMap((message) => message.parts)) {
      if (part.state === "input-available" && part.toolMetadata?.waits) {
        await entry.made.addToolOutput({ tool: part.toolName, toolCallId: part.toolCallId, output });
      }
    }
    await entry.made.sendMessage();
  },
  async resume({ chat, turn, wait = true }) {
    const resumed = chats.get(chat).made.resumeStream(turn ? { body: { turn } } : {});
    if (wait) await resumed;
  },
  async disconnect({ chat }) {
    await chats.get(chat).made.stop();
  },
  async load({ chat }) {
    const { made } = chats.get(chat);
    const answer = await fetch(`${api}/${encodeURIComponent(made.id)}/messages`, { headers });
    made.messages = (await answer.json()).messages;
  },
  async stop({ chat, turnId }) {
    const { made } = chats.get(chat);
    const body = JSON.stringify(turnId ? { turnId } : {});
    const url = `${api}/${encodeURIComponent(made.id)}/stop`;
    const answer = await fetch(url, { method: "POST", headers: { ...headers, "content-type": "application/json" }, body });
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
  const entry = chats.get(command.chat);
  if (entry) answer = { ...answer, status: entry.made.status, messages: entry.made.messages, ...entry.log };
  console.log(JSON.stringify(answer));
}
