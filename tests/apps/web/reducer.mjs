// The reducer of the page, for a test that is not a browser: lists of actions in, one a line; what the page shows out.
import { createInterface } from "node:readline";

import { initialState, itemsOf, reduce } from "../../../trio_sagents/web/static/lib/reducer.js";

let state = initialState();
for await (const line of createInterface({ input: process.stdin })) {
  const actions = JSON.parse(line);
  if (actions === null) state = initialState();
  else for (const action of actions) state = reduce(Object.freeze(state), action);
  const conversations = Object.values(state.conversations).map((c) => ({
    ...c, touched: c.touched && [...c.touched], items: itemsOf(c.rows, c.calls).map((item) => item.key),
  }));
  process.stdout.write(`${JSON.stringify(conversations)}\n`);
}
