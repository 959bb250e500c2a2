/**
 * The typed connection: asks with a time limit, comes back by itself, and says how it stands.
 *
 * It counts as up only once `session:state` came: whoever asks before that would ask about a past that the server
 * may not share. Nothing is queued while it is away; each view-model knows best what is still worth saying.
 *
 * When its worker is about to stop it moves: another line is made first, and takes over with its `session:state`.
 * Nobody else in the program notices more than a state that comes once more.
 */
import {
  CONTRACT,
  ERROR_CODES,
  type Answer,
  type ClientToServerEvents,
  type ErrorCode,
  type ServerToClientEvents,
} from "./contract.gen";
import type { Cancel, Env, Line } from "./env";
import type { Hold, Link, Store } from "./model";
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
const PASSING: ReadonlySet<string> = new Set(["rate_limited", "busy", "unavailable", "internal", "unreachable", "address_full"]);

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
  /** Why and until when it does not try again, where that is long enough to say. */
  readonly hold: Store<Hold | null>;
  /** Never rejects. `unreachable` at once while away, or when no answer came in time. */
  ask<E extends Ask>(event: E, request: RequestOf<E>, timeoutMs?: number): Promise<Outcome<ReplyOf<E>>>;
  on<E extends Push>(event: E, listener: (push: PushOf<E>) => void): void;
  /** The server refused for a reason that trying again does not change; the connection is closed. */
  onRefused(listener: (failure: Failure) => void): void;
  /** It met a worker of another version. Unless it is closed now it tries others: there may be some of this one's. */
  onOtherVersion(listener: () => void): void;
  open(): void;
  close(): void;
  /** Begins anew at once, whatever it believed. */
  reconnect(): void;
  /** Goes to another worker in a while, and goes on meanwhile. */
  move(inMs: number): void;
}

/** One line and who waits for an answer on it. */
interface Strand {
  readonly line: Line;
  readonly waiting: Set<Settle>;
}

type Settle = (outcome: { readonly error: Failure }) => void;

const ASK_TIMEOUT_MS = 5_000;
const STATE_TIMEOUT_MS = 5_000;
const FIRST_DELAY_MS = 300;
/** A shorter wait is over before it is read. */
const WORTH_SAYING_MS = 2_000;
const LAST_DELAY_MS = 5_000;
/** An update takes minutes, and each attempt may meet a worker that is not there yet, or no longer. */
const OTHER_VERSION_MS = 5_000;
/** While the former line still stands it is worth trying sooner. */
const OTHER_VERSION_MOVING_MS = 1_000;
/** How long a line that was given up may still be taken in by the server, in place of the one in use. */
const GIVEN_UP_MS = 10_000;
/** How long nobody is told that the former line is gone, while the next is being made. */
const BETWEEN_MS = 1_500;
/** What was asked on the former line may still be answered there for so long. */
const RETIRE_MS = 1_000;

export function createConnection(
  env: Env,
  credentials: () => { readonly token: string; readonly claim: string | null },
): Connection {
  const link = store<Link>("reconnecting");
  const hold = store<Hold | null>(null);
  const listeners = new Map<string, ((push: never) => void)[]>();
  const refusedListeners: ((failure: Failure) => void)[] = [];
  const otherVersionListeners: (() => void)[] = [];
  const asking = new Set<Settle>();
  /** What was asked between two lines, or on the former one when the server had moved on already; in order. */
  let held: ((strand: Strand) => void)[] = [];
  let wanted = false;
  let ready = false;
  let attempts = 0;
  let heard = 0;
  let wasOffline = false;
  let timer: Cancel | null = null;
  /** Who asks, asks here; null between two lines. */
  let current: Strand | null = spin();
  /** Will be the current one once it has said where this guest stands. */
  let coming: Strand | null = null;
  let moveTimer: Cancel | null = null;
  /** Set while a line that came to nothing may yet displace the current one. */
  let givenUp: Cancel | null = null;

  function spin(): Strand {
    const strand: Strand = {
      waiting: new Set(),
      line: env.line({
        auth: () => ({ contract: CONTRACT, ...credentials() }),
        connected() {
          heard += 1;
          // Hanging up brings `disconnected`, and that the next attempt.
          if (strand === current) later(STATE_TIMEOUT_MS, () => strand.line.disconnect());
          else if (strand === coming) moveLater(STATE_TIMEOUT_MS, () => strand.line.disconnect());
        },
        disconnected() {
          for (const settle of [...strand.waiting]) settle(UNREACHABLE);
          if (strand === coming) {
            giveUp();
            failedToMove();
          } else if (strand === current) {
            if (ready && coming !== null) between();
            else {
              down();
              // Several hundred clients of one dead worker must not knock on the next in the same instant.
              if (wanted) comeBack();
            }
          }
        },
        refused(data) {
          if (!wanted || (strand !== current && strand !== coming)) return;
          const failure = failureOf(data);
          if (failure.code === "stale_client") meetOtherVersion(strand);
          else if (!passes(failure)) {
            close();
            for (const listener of refusedListeners) listener(failure);
          } else if (strand === coming) {
            // No word from the server: it may have taken this line in all the same.
            if (failure.code === "unreachable") giveUp();
            failedToMove(failure.retryInMs ?? 0);
          } else {
            const delay = comeBack(failure.retryInMs ?? 0);
            const asked = (failure.retryInMs ?? 0) >= WORTH_SAYING_MS;
            hold.set(asked ? { problem: failure.code, retryAt: env.now() + delay } : null);
          }
        },
        pushed(event, push) {
          heard += 1;
          if (strand === coming && event === "session:state") takeOver(strand);
          // Whatever a former line still says, the state has said since, or its sender says again.
          if (strand !== current) return;
          // By the line that is coming.
          if (event === "session:replaced" && coming !== null) return;
          if (event === "session:replaced" && givenUp !== null) {
            // By the one that was given up: neither of the two is of use now.
            givenUp();
            givenUp = null;
            reconnect();
            return;
          }
          if (event === "session:state") {
            later(null);
            moveTimer?.();
            ready = true;
            attempts = 0;
            hold.set(null);
          }
          for (const listener of listeners.get(event) ?? []) listener(push as never);
          if (event === "session:state") for (const ask of held.splice(0)) ask(strand);
          // After the listeners: who sees `online` sees a program that knows where it stands.
          show();
        },
        heard() {
          heard += 1;
        },
      }),
    };
    return strand;
  }

  // ------------------------------------------------------------------ moving

  function moveLater(ms: number, run: () => void): void {
    moveTimer?.();
    moveTimer = env.after(ms, run);
  }

  function stay(): void {
    moveTimer?.();
    const given = coming;
    coming = null;
    given?.line.disconnect();
  }

  function move(): void {
    if (!wanted || !ready || coming !== null) return;
    coming = spin();
    coming.line.connect("websocket");
  }

  /** Whether another line takes this one's place, or has done so. */
  function isFormer(strand: Strand): boolean {
    return wanted && ready && strand !== coming && (coming !== null || strand !== current);
  }

  function failedToMove(atLeastMs = 0): void {
    moveTimer?.();
    coming = null;
    // The worker that is about to stop goes on for a moment, and somebody else may take this guest by then.
    if (current !== null) moveLater(Math.max(FIRST_DELAY_MS, atLeastMs) * (1 + env.random()), move);
    else {
      current = spin();
      down();
      comeBack(atLeastMs);
    }
  }

  function giveUp(): void {
    givenUp?.();
    givenUp = env.after(GIVEN_UP_MS, () => {
      givenUp = null;
    });
  }

  function between(): void {
    current = null;
    later(BETWEEN_MS, () => {
      current = coming;
      coming = null;
      down();
    });
  }

  function takeOver(strand: Strand): void {
    const former = current;
    current = strand;
    coming = null;
    if (former !== null) env.after(RETIRE_MS, () => former.line.disconnect());
  }

  // ------------------------------------------------------------------ coming back

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
    for (const settle of [...asking]) settle(UNREACHABLE);
    held = [];
    show();
  }

  /** Returns in how long. */
  function comeBack(atLeastMs = 0): number {
    const ceiling = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempts);
    const delay = Math.max(FIRST_DELAY_MS, atLeastMs) + env.random() * ceiling;
    attempts += 1;
    const bounded = Math.min(delay, Math.max(LAST_DELAY_MS, atLeastMs * 1.5));
    later(bounded, attempt);
    return bounded;
  }

  function meetOtherVersion(strand: Strand): void {
    for (const listener of otherVersionListeners) listener();
    if (!wanted) return;
    if (strand === coming) {
      failedToMove(OTHER_VERSION_MOVING_MS);
      return;
    }
    const delay = OTHER_VERSION_MS * (1 + env.random());
    later(delay, attempt);
    hold.set({ problem: "stale_client", retryAt: env.now() + delay });
  }

  function attempt(): void {
    later(null);
    // A proxy that swallows the upgrade lets a websocket hang until the time limit: then begin with polling.
    current?.line.connect(attempts % 3 === 2 ? "polling" : "websocket");
  }

  function reconnect(): void {
    if (!wanted) return;
    close();
    wanted = true;
    attempt();
  }

  function close(): void {
    wanted = false;
    stay();
    current ??= spin();
    current.line.disconnect();
    down();
  }

  return {
    link,
    hold,
    ask(event, request, timeoutMs = ASK_TIMEOUT_MS) {
      type Reply = ReplyOf<typeof event>;
      if (!ready) return Promise.resolve<Outcome<Reply>>(UNREACHABLE);
      return new Promise<Outcome<Reply>>((resolve) => {
        const heardBefore = heard;
        let on: Strand | null = null;
        const settle = (outcome: Outcome<Reply>) => {
          if (!asking.delete(settle)) return;
          on?.waiting.delete(settle);
          cancel();
          resolve(outcome);
        };
        const cancel = env.after(timeoutMs, () => {
          settle(UNREACHABLE);
          // Not a word since: the connection is dead and does not know it yet.
          if (heard === heardBefore) reconnect();
        });
        asking.add(settle);
        const emit = (strand: Strand) => {
          if (!asking.has(settle)) return;
          on = strand;
          strand.waiting.add(settle);
          strand.line.emit(event, request, (raw) => {
            heard += 1;
            const answer = raw as Answer<Reply>;
            if ("ok" in answer) settle(answer);
            else {
              const error = failureOf(answer.error);
              // The guest is on the next line already, which only has not said so yet. Nothing was done here.
              if (error.code === "session_expired" && isFormer(strand)) {
                strand.waiting.delete(settle);
                if (current === null || current === strand) held.push(emit);
                else emit(current);
                return;
              }
              settle({ error });
              // The session ended under a living connection; connecting again tells which way on, as one does already.
              const ended = error.code === "session_expired" || error.code === "token_invalid";
              if (ended && strand === current && coming === null) reconnect();
            }
          });
        };
        if (current === null || held.length > 0) held.push(emit);
        else emit(current);
      });
    },
    on(event, listener) {
      listeners.set(event, [...(listeners.get(event) ?? []), listener]);
    },
    onRefused(listener) {
      refusedListeners.push(listener);
    },
    onOtherVersion(listener) {
      otherVersionListeners.push(listener);
    },
    open() {
      if (wanted) return;
      wanted = true;
      attempts = 0;
      attempt();
    },
    close,
    reconnect,
    move: (inMs) => moveLater(inMs, move),
  };
}
