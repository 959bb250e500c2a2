/**
 * The typed connection: asks with a time limit, comes back by itself, and says how it stands.
 *
 * It counts as up only once `session:state` came: whoever asks before that would ask about a past that the server
 * may not share. Nothing is queued while it is away; each view-model knows best what is still worth saying.
 */
import {
  CONTRACT,
  ERROR_CODES,
  type Answer,
  type ClientToServerEvents,
  type ErrorCode,
  type ServerToClientEvents,
} from "./contract.gen";
import type { Cancel, Env } from "./env";
import type { Link, Store } from "./model";
import { store } from "./store";

type Ask = keyof ClientToServerEvents;
type Push = keyof ServerToClientEvents;
export type RequestOf<E extends Ask> = Parameters<ClientToServerEvents[E]>[0];
type ReplyOf<E extends Ask> = Extract<
  Parameters<Parameters<ClientToServerEvents[E]>[1]>[0],
  { readonly ok: unknown }
>["ok"];
export type PushOf<E extends Push> = Parameters<ServerToClientEvents[E]>[0];

export interface Failure {
  readonly code: ErrorCode | "unreachable";
  readonly retryInMs: number | null;
  readonly data: Readonly<Record<string, unknown>>;
}

export type Outcome<T> = { readonly ok: T } | { readonly error: Failure };

export const UNREACHABLE: { readonly error: Failure } = { error: { code: "unreachable", retryInMs: null, data: {} } };

/** Refusals that time heals. */
const PASSING: ReadonlySet<string> = new Set(["rate_limited", "busy", "unavailable", "internal", "unreachable"]);

export function passes(failure: Failure): boolean {
  return PASSING.has(failure.code);
}

/** Reads a refusal `{code, ...data}`; what is none becomes `unreachable`: something between answered, not the server. */
export function failureOf(refusal: unknown): Failure {
  if (typeof refusal !== "object" || refusal === null) return UNREACHABLE.error;
  const data = refusal as Record<string, unknown>;
  const code = ERROR_CODES.find((known) => known === data.code);
  if (code === undefined) return UNREACHABLE.error;
  return { code, retryInMs: typeof data.retryInMs === "number" ? data.retryInMs : null, data };
}

export interface Connection {
  readonly link: Store<Link>;
  /** Never rejects. `unreachable` at once while away, or when no answer came in time. */
  ask<E extends Ask>(event: E, request: RequestOf<E>, timeoutMs?: number): Promise<Outcome<ReplyOf<E>>>;
  on<E extends Push>(event: E, listener: (push: PushOf<E>) => void): void;
  /** The server refused for a reason that trying again does not change; the connection is closed. */
  onRefused(listener: (failure: Failure) => void): void;
  open(): void;
  close(): void;
  /** Begins anew at once, whatever it believed. */
  reconnect(): void;
}

const ASK_TIMEOUT_MS = 5_000;
const STATE_TIMEOUT_MS = 5_000;
const FIRST_DELAY_MS = 300;
const LAST_DELAY_MS = 5_000;

export function createConnection(
  env: Env,
  credentials: () => { readonly token: string; readonly claim: string | null },
): Connection {
  const link = store<Link>("reconnecting");
  const listeners = new Map<string, ((push: never) => void)[]>();
  const refusedListeners: ((failure: Failure) => void)[] = [];
  const waiting = new Set<(outcome: { readonly error: Failure }) => void>();
  let wanted = false;
  let ready = false;
  let attempts = 0;
  let heard = 0;
  let wasOffline = false;
  let timer: Cancel | null = null;

  const line = env.line({
    auth: () => ({ contract: CONTRACT, ...credentials() }),
    connected() {
      heard += 1;
      // Hanging up brings `disconnected`, and that the next attempt.
      later(STATE_TIMEOUT_MS, () => line.disconnect());
    },
    disconnected() {
      down();
      // Several hundred clients of one dead worker must not knock on the next in the same instant.
      if (wanted) comeBack();
    },
    refused(data) {
      if (!wanted) return;
      const failure = failureOf(data);
      if (passes(failure)) comeBack(failure.retryInMs ?? 0);
      else {
        close();
        for (const listener of refusedListeners) listener(failure);
      }
    },
    pushed(event, push) {
      heard += 1;
      if (event === "session:state") {
        later(null);
        ready = true;
        attempts = 0;
      }
      for (const listener of listeners.get(event) ?? []) listener(push as never);
      // After the listeners: who sees `online` sees a program that knows where it stands.
      show();
    },
    heard() {
      heard += 1;
    },
  });

  env.onNetwork(() => {
    show();
    if (!env.online()) wasOffline = true;
    else if (wanted && (wasOffline || !ready)) {
      // A socket opened on the former network may look alive for a minute.
      wasOffline = false;
      reconnect();
    }
  });
  env.onVisible(() => {
    if (wanted && !ready) reconnect();
  });

  function show(): void {
    link.set(ready ? "online" : env.online() ? "reconnecting" : "offline");
  }

  function later(ms: number, run: () => void): void;
  function later(ms: null): void;
  function later(ms: number | null, run?: () => void): void {
    timer?.();
    timer = ms === null || run === undefined ? null : env.after(ms, run);
  }

  function down(): void {
    ready = false;
    later(null);
    for (const settle of [...waiting]) settle(UNREACHABLE);
    show();
  }

  function comeBack(atLeastMs = 0): void {
    const ceiling = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempts);
    const delay = Math.max(FIRST_DELAY_MS, atLeastMs) + env.random() * ceiling;
    attempts += 1;
    later(Math.min(delay, Math.max(LAST_DELAY_MS, atLeastMs * 1.5)), attempt);
  }

  function attempt(): void {
    later(null);
    // A proxy that swallows the upgrade lets a websocket hang until the time limit: then begin with polling.
    line.connect(attempts % 3 === 2 ? "polling" : "websocket");
  }

  function reconnect(): void {
    if (!wanted) return;
    wanted = false;
    line.disconnect();
    wanted = true;
    down();
    attempt();
  }

  function close(): void {
    wanted = false;
    line.disconnect();
    down();
  }

  return {
    link,
    ask(event, request, timeoutMs = ASK_TIMEOUT_MS) {
      type Reply = ReplyOf<typeof event>;
      if (!ready) return Promise.resolve<Outcome<Reply>>(UNREACHABLE);
      return new Promise<Outcome<Reply>>((resolve) => {
        const heardBefore = heard;
        const settle = (outcome: Outcome<Reply>) => {
          if (!waiting.delete(settle)) return;
          cancel();
          resolve(outcome);
        };
        const cancel = env.after(timeoutMs, () => {
          settle(UNREACHABLE);
          // Not a word since: the connection is dead and does not know it yet.
          if (heard === heardBefore) reconnect();
        });
        waiting.add(settle);
        line.emit(event, request, (raw) => {
          heard += 1;
          const answer = raw as Answer<Reply>;
          if ("ok" in answer) settle(answer);
          else {
            const error = failureOf(answer.error);
            settle({ error });
            // The session ended under a living connection; connecting again tells which way on.
            if (error.code === "session_expired" || error.code === "token_invalid") reconnect();
          }
        });
      });
    },
    on(event, listener) {
      listeners.set(event, [...(listeners.get(event) ?? []), listener]);
    },
    onRefused(listener) {
      refusedListeners.push(listener);
    },
    open() {
      if (wanted) return;
      wanted = true;
      attempts = 0;
      attempt();
    },
    close,
    reconnect,
  };
}
