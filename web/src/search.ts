/** Looking for a stranger: what was asked, whom it accepts by now, and asking again when the server forgot. */
import type { ErrorCode, SearchStep } from "./contract.gen";
import type { Conversation } from "./conversation";
import type { Cancel, Env } from "./env";
import type { Keep } from "./keep";
import type { Lobby } from "./lobby";
import type { SearchView, Store } from "./model";
import { isNumber, isRecord } from "./shape";
import { passes, type Connection } from "./socket";
import { store } from "./store";

export interface Search {
  readonly view: Store<SearchView>;
  /** A new connection, and whether the guest has a seat there: without one, a search goes on. */
  connected(seated: boolean): Promise<void>;
  find(): Promise<void>;
  cancel(): Promise<void>;
  /** The tab is a copy of another, and the search the other's. */
  discard(): void;
  skip(): Promise<void>;
}

const RETRY_MS = 2_000;
/** Refusals in a row after which a search is given up rather than shown as one that goes on. */
const PATIENCE = 5;

const SEARCHING = "searching.1";
/** A search goes on after a reload, not in a tab that is restored another day. */
const RESUME_MS = 60_000;

export function createSearch(env: Env, connection: Connection, lobby: Lobby, conversation: Conversation, tab: Keep): Search {
  type Running = Extract<SearchView, { readonly phase: "searching" }>;
  const view = store<SearchView>({ phase: "idle", problem: null });
  /** Distinguishes this search from an earlier one whose answer is still on its way. */
  let search = 0;
  let refusals = 0;
  let ticketSince: number | null = null;
  let timers: Cancel[] = [];

  function running(): Running | null {
    const now = view.get();
    return now.phase === "searching" ? now : null;
  }

  function change(part: Partial<Running>): void {
    const now = running();
    if (now !== null) view.set({ ...now, ...part });
  }

  function clearTimers(): void {
    for (const cancel of timers) cancel();
    timers = [];
  }

  function stop(problem: ErrorCode | "unreachable" | null = null): void {
    search += 1;
    refusals = 0;
    ticketSince = null;
    clearTimers();
    tab.forget(SEARCHING);
    view.set({ phase: "idle", problem });
  }

  async function ask(): Promise<void> {
    const mine = search;
    await conversation.settle();
    if (mine !== search) return;
    const { mode, interests, languages } = lobby.view.get();
    const outcome = await connection.ask("match:find", { mode, interests, languages });
    if (mine !== search || running() === null) return;
    if ("ok" in outcome) {
      refusals = 0;
      change({ paused: false, interests, languages });
      widen(outcome.ok.since, outcome.ok.steps);
      return;
    }
    const { code, retryInMs } = outcome.error;
    if (code === "unreachable" && connection.link.get() !== "online") {
      // `connected` asks again.
      change({ paused: true });
      return;
    }
    refusals += 1;
    if (code === "in_conversation" && refusals < PATIENCE) {
      // A seat nobody here knows of: the state that comes first on a connection names it.
      connection.reconnect();
      return;
    }
    if (!passes(outcome.error) || refusals >= PATIENCE) {
      stop(code);
      return;
    }
    change({ paused: true });
    timers.push(env.after(retryInMs ?? RETRY_MS, () => void ask()));
  }

  function widen(since: number, steps: readonly SearchStep[]): void {
    // The same ticket kept its place: its steps run already.
    if (since === ticketSince) return;
    ticketSince = since;
    clearTimers();
    for (const { afterMs, accepts } of steps) {
      if (afterMs <= 0) change({ accepts });
      else timers.push(env.after(afterMs, () => change({ accepts })));
    }
  }

  async function find(): Promise<void> {
    if (running() !== null) return;
    const talk = conversation.view.get();
    if (talk !== null && talk.ended === null) return;
    if (talk !== null) conversation.close();
    begin();
    await ask();
  }

  function begin(since = env.now()): void {
    search += 1;
    refusals = 0;
    const { interests, languages, online } = lobby.view.get();
    tab.write(SEARCHING, { since, seen: env.now() });
    view.set({
      phase: "searching",
      since,
      // What the server will say first; its answer corrects it.
      accepts: interests.length > 0 ? "interests" : languages.length > 0 ? "language" : "anyone",
      interests,
      languages,
      alone: online <= 1,
      paused: connection.link.get() !== "online",
    });
  }

  env.onHidden(() => {
    const now = running();
    if (now !== null) tab.write(SEARCHING, { since: now.since, seen: env.now() });
  });
  const kept = tab.read(SEARCHING, isRecord({ since: isNumber, seen: isNumber })) as { since: number; seen: number } | null;
  if (kept !== null && conversation.view.get() === null && env.now() - kept.seen < RESUME_MS) begin(kept.since);
  else tab.forget(SEARCHING);

  lobby.view.subscribe(() => {
    const alone = lobby.view.get().online <= 1;
    if (running()?.alone !== alone) change({ alone });
  });
  connection.link.subscribe(() => {
    if (connection.link.get() === "online" || running() === null) return;
    // The server drops a ticket with its connection.
    ticketSince = null;
    clearTimers();
    change({ paused: true });
  });
  connection.on("match:found", ({ conversation: seated }) => {
    if (running() === null && conversation.view.get()?.id !== seated.id) {
      // Found in the instant of giving up: who cancelled is not drawn into a conversation.
      void conversation.refuse(seated.id);
      return;
    }
    stop();
    conversation.begin(seated);
  });

  return {
    view,
    async connected(seated) {
      if (running() === null) return;
      if (seated) stop();
      else await ask();
    },
    find,
    async cancel() {
      if (running() === null) return;
      stop();
      await connection.ask("match:cancel", {});
    },
    discard: () => stop(),
    async skip() {
      if (running() !== null) return;
      const left = conversation.leave();
      conversation.close();
      begin();
      const mine = search;
      await left;
      if (mine === search) await ask();
    },
  };
}
