/**
 * Reliable, ordered, exactly-once delivery between two clients, over a relay that may lose, repeat and reorder.
 *
 * Go-back-N with a cumulative receipt: the sender numbers its items from 1 and keeps each one until the other side's
 * client says "delivered up to n"; whenever something may have been lost it sends again all above n, in order. The
 * receiver applies in order, each number once. "Accepted" (the relay's ack) only steers when to send.
 */
import type { Accepted, Body, Done } from "./contract.gen";
import type { Cancel, Env } from "./env";
import { passes, type Outcome } from "./socket";

export interface Item {
  readonly id: string;
  readonly seq: number;
  readonly body: Body;
}

interface Kept extends Item {
  body: Body;
  accepted: boolean;
  /** It may have been on the wire. */
  tried: boolean;
  /** Replaced by a stand-in, because the server refused the original for good. */
  refused: boolean;
  /** When the current wait for acceptance began. */
  since: number;
}

/** Survives a reload. `items` are those above `delivered`. */
export interface OutboxState {
  readonly last: number;
  readonly delivered: number;
  readonly read: number;
  readonly items: readonly (Item & { readonly accepted: boolean; readonly refused: boolean })[];
}

export interface Outbox {
  /** Numbers an item; nothing is on the wire before `flush`, so that it can be written down first. */
  add(id: string, body: Body): Item;
  flush(): void;
  /** Takes an item back that certainly never left; says whether it could. */
  withdraw(seq: number): boolean;
  retry(): void;
  receipt(delivered: number, read: number): void;
  /** A connection on which this conversation goes on. */
  connected(partnerHere: boolean): void;
  disconnected(): void;
  /** Told on every arrival of the partner, and on departure. */
  partner(here: boolean): void;
  /** The conversation is over: nothing is sent any more, receipts still count. */
  end(): void;
  standing(seq: number): "sending" | "sent" | "delivered" | "read" | "failed";
  /** Until when nothing is sent, because it was too much at once, where that is long enough to say; else null. */
  waitsUntil(): number | null;
  state(): OutboxState;
}

/**
 * Items on the wire without an answer, at most. A long-polling client puts everything it has into one POST, and
 * the server discards a POST of more than 16 packets; this leaves room for receipts and the like.
 */
const WINDOW = 8;
/** After a refusal for haste it is one at a time, and one more for each so many that were taken. */
const PATIENT_FOR = 8;
const FAILED_AFTER_MS = 8_000;
/** Accepted, but no receipt: how long until it is sent again, and at most after repeated silence. */
const FIRST_SILENCE_MS = 4_000;
const LAST_SILENCE_MS = 30_000;
const FIRST_SETBACK_MS = 500;
/** A shorter wait is over before it is read. */
const WORTH_SAYING_MS = 2_000;
/** What a receiver does not know, it ignores: a deletion of itself keeps a number's place without saying anything. */
const standIn = (id: string): Body => ({ kind: "deletion", target: id });

export function createOutbox(
  env: Env,
  outside: {
    send(item: Item): Promise<Outcome<Accepted>>;
    /** The relay took it, at this time of the server. */
    accepted(item: Item, at: number): void;
    /** The server will never take it; a stand-in holds its place. */
    refused(item: Item): void;
    /** A standing changed, or whether they wait. */
    changed(): void;
  },
  saved: OutboxState = { last: 0, delivered: 0, read: 0, items: [] },
): Outbox {
  let { last, delivered, read } = saved;
  const items = new Map<number, Kept>(
    saved.items.map((item) => [item.seq, { ...item, tried: true, since: env.now() }]),
  );
  /** The next number to put on the wire in this pass. */
  let cursor = delivered + 1;
  let unanswered = 0;
  let width = WINDOW;
  let open = false;
  let here = false;
  let over = false;
  let setbacks = 0;
  let silence = FIRST_SILENCE_MS;
  let pause: Cancel | null = null;
  let waits: number | null = null;
  let silenceTimer: Cancel | null = null;
  let failTimer: Cancel | null = null;

  function pump(): void {
    while (open && !over && pause === null && unanswered < Math.floor(width) && cursor <= last) {
      const item = items.get(cursor);
      cursor += 1;
      if (item !== undefined) emit(item);
    }
  }

  function emit(item: Kept): void {
    unanswered += 1;
    item.tried = true;
    const sent = item.body;
    void outside.send(item).then((outcome) => {
      unanswered -= 1;
      if (over) return;
      if ("ok" in outcome) {
        setbacks = 0;
        width = Math.min(WINDOW, width + 1 / PATIENT_FOR);
        if (!item.accepted) {
          item.accepted = true;
          // While others are taken, the ones behind them wait; they have not failed.
          hope();
          outside.accepted(item, outcome.ok.at);
        }
        listen();
      } else if (open && item.seq > delivered) {
        const { error } = outcome;
        if (error.code === "rate_limited") {
          // A server cuts who keeps pressing; what it took before needs no repeating.
          width = 1;
          cursor = Math.min(cursor, item.seq);
          if (pause === null) holdBack(error.retryInMs ?? FIRST_SETBACK_MS);
        } else if (passes(error)) setBack(error.retryInMs);
        else if (error.code === "not_in_conversation" || item.refused) setBack(null);
        else if (item.body === sent) {
          item.refused = true;
          item.body = standIn(item.id);
          cursor = Math.min(cursor, item.seq);
          outside.refused(item);
        }
      }
      pump();
    });
  }

  /** It was too much at once; what has to wait for so long has not failed. */
  function holdBack(ms: number): void {
    pause = env.after(ms, () => {
      goOn();
      pump();
    });
    for (const item of items.values()) if (!item.accepted) item.since = env.now() + ms;
    watchForFailure();
    if (ms < WORTH_SAYING_MS) return;
    waits = env.now() + ms;
    outside.changed();
  }

  function goOn(): void {
    pause?.();
    pause = null;
    if (waits === null) return;
    waits = null;
    outside.changed();
  }

  /** Something went wrong on the way: all above `delivered` again, a little later. */
  function setBack(retryInMs: number | null): void {
    if (pause !== null) return;
    const patience = Math.min(LAST_SILENCE_MS, FIRST_SETBACK_MS * 2 ** setbacks);
    setbacks += 1;
    pause = env.after(retryInMs ?? patience, again);
  }

  function again(): void {
    goOn();
    cursor = delivered + 1;
    pump();
  }

  /** Wait for a receipt of what was accepted; after too long a silence, say it again. */
  function listen(): void {
    if (silenceTimer !== null || over || !open) return;
    if (![...items.values()].some((item) => item.accepted)) return;
    // Nobody answers for a partner who is away. The slow repeat is for the case that their return went unnoticed.
    silenceTimer = env.after(here ? silence : LAST_SILENCE_MS, () => {
      silenceTimer = null;
      silence = Math.min(LAST_SILENCE_MS, silence * 2);
      again();
      listen();
    });
  }

  function hush(): void {
    silenceTimer?.();
    silenceTimer = null;
  }

  function calm(): void {
    silence = FIRST_SILENCE_MS;
    setbacks = 0;
    hush();
  }

  /** Starts the patience of what was not accepted yet anew. */
  function hope(): void {
    for (const item of items.values()) if (!item.accepted) item.since = env.now();
    watchForFailure();
  }

  function watchForFailure(): void {
    failTimer?.();
    failTimer = null;
    const since = [...items.values()].filter((item) => !item.accepted && !failed(item)).map((item) => item.since);
    if (since.length === 0 || over) return;
    failTimer = env.after(Math.min(...since) + FAILED_AFTER_MS - env.now(), () => {
      outside.changed();
      watchForFailure();
    });
  }

  const failed = (item: Kept) => item.refused || env.now() - item.since >= FAILED_AFTER_MS;

  watchForFailure();

  return {
    add(id, body) {
      last += 1;
      const item = { id, seq: last, body, accepted: false, tried: false, refused: false, since: waits ?? env.now() };
      items.set(last, item);
      if (failTimer === null) watchForFailure();
      return item;
    },
    flush: pump,
    withdraw(seq) {
      const item = items.get(seq);
      if (item === undefined || item.tried) return false;
      item.body = standIn(item.id);
      return true;
    },
    retry() {
      hope();
      again();
    },
    receipt(newDelivered, newRead) {
      const upTo = Math.min(last, newDelivered);
      if (upTo > delivered) {
        for (let seq = delivered + 1; seq <= upTo; seq += 1) items.delete(seq);
        delivered = upTo;
        cursor = Math.max(cursor, delivered + 1);
        calm();
        listen();
      }
      read = Math.max(read, Math.min(delivered, newRead));
      outside.changed();
    },
    connected(partnerHere) {
      open = true;
      here = partnerHere;
      calm();
      hope();
      again();
      listen();
    },
    disconnected() {
      open = false;
      goOn();
      hush();
    },
    partner(nowHere) {
      here = nowHere;
      if (!open) return;
      calm();
      if (here) again();
      listen();
    },
    end() {
      over = true;
      // What is not sent any more need not be kept.
      for (const item of items.values()) item.body = standIn(item.id);
      goOn();
      hush();
      failTimer?.();
      failTimer = null;
    },
    standing(seq) {
      if (seq <= read) return "read";
      if (seq <= delivered) return "delivered";
      const item = items.get(seq);
      if (item === undefined) return "sending";
      return item.accepted ? "sent" : failed(item) ? "failed" : "sending";
    },
    waitsUntil: () => waits,
    state: () => ({
      last,
      delivered,
      read,
      items: [...items.values()].map(({ id, seq, body, accepted, refused }) => ({ id, seq, body, accepted, refused })),
    }),
  };
}

export interface InboxState {
  readonly applied: number;
  readonly read: number;
}

export interface Inbox<T extends { readonly seq: number }> {
  receive(item: T): void;
  /** Whether what arrives is seen at once; turning it on has seen all that came. */
  watch(watching: boolean): void;
  /** Say again how far everything is: after an absence of either side. */
  repeat(): void;
  end(): void;
  state(): InboxState;
}

/** Messages come in bursts: after a receipt, one more for all within this time. */
const GATHER_MS = 50;
const RECEIPT_SETBACK_MS = 1_000;
/** How far ahead of the next item one may be kept; a sender's window is far smaller. */
const AHEAD = 1_000;

export function createInbox<T extends { readonly seq: number }>(
  env: Env,
  outside: {
    apply(item: T): void;
    /** Must not return before what was applied is written down: a receipt is a promise. */
    acknowledge(delivered: number, read: number): Promise<Outcome<Done>>;
  },
  saved: InboxState = { applied: 0, read: 0 },
): Inbox<T> {
  let { applied, read } = saved;
  const early = new Map<number, T>();
  let watching = false;
  let over = false;
  /** A receipt is due. */
  let asked = false;
  let gatherUntil = 0;
  let timer: Cancel | null = null;

  /** At once for the first after a while: a hidden tab's timers may be a minute late. */
  function soon(): void {
    if (over) return;
    asked = true;
    if (env.now() >= gatherUntil) void Promise.resolve().then(tell);
    else timer ??= env.after(gatherUntil - env.now(), tell);
  }

  function tell(): void {
    timer?.();
    timer = null;
    if (over || !asked) return;
    asked = false;
    gatherUntil = env.now() + GATHER_MS;
    void outside.acknowledge(applied, read).then((outcome) => {
      if ("ok" in outcome || !passes(outcome.error)) return;
      gatherUntil = env.now() + (outcome.error.retryInMs ?? RECEIPT_SETBACK_MS);
      timer?.();
      timer = null;
      soon();
    });
  }

  return {
    receive(item) {
      if (item.seq > applied && item.seq <= applied + AHEAD && !early.has(item.seq)) early.set(item.seq, item);
      for (let next = early.get(applied + 1); next !== undefined; next = early.get(applied + 1)) {
        applied += 1;
        early.delete(applied);
        if (watching) read = applied;
        outside.apply(next);
      }
      // A repeat means that the receipt did not arrive.
      soon();
    },
    watch(now) {
      watching = now;
      if (!watching || read === applied) return;
      read = applied;
      soon();
    },
    repeat() {
      // Coming back ends any waiting that a failure on the former connection began.
      gatherUntil = 0;
      if (applied > 0) soon();
    },
    end() {
      over = true;
      timer?.();
      timer = null;
    },
    state: () => ({ applied, read }),
  };
}
