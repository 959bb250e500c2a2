/**
 * The files of the conversation on screen: what this server takes, where each can be fetched for now, which are gone,
 * and which of a stranger's pictures this guest wants to see.
 */
import type { ErrorCode, FileKind, FileLimits, SharedFile } from "./contract.gen";
import type { Cancel, Env } from "./env";
import type { Keep } from "./keep";
import type { ConversationView, FilePlace, FilesView, Store } from "./model";
import { isFlag, isList, isNumber, isRecord, isText } from "./shape";
import { passes, type Connection } from "./socket";
import { store } from "./store";

export interface Files {
  readonly view: Store<FilesView>;
  /** The server said what it takes. */
  offers(limits: FileLimits | null): void;
  check(file: File): { readonly problem: ErrorCode; readonly limit: number | null } | null;
  open(id: string): Promise<void>;
  failed(id: string): Promise<void>;
  show(id: string, shown: boolean): void;
  alwaysShow(always: boolean): void;
  /** A message was deleted that this was part of. */
  erased(file: SharedFile, mine: boolean): void;
  /** Deletes one's own file, or half of one, from the server; goes on until the server has heard it. */
  takeBack(id: string): void;
  /** Just now the server's clock showed this. */
  clock(at: number): void;
}

/** A file that somebody wants to see. */
interface Wanted {
  /** When its address ends, by this device's clock; null: there is none. */
  until: number | null;
  asking: Promise<void> | null;
  timer: Cancel | null;
  setbacks: number;
  /** Addresses in a row that did not work, and when the last of them was asked for. */
  failures: number;
  askedAt: number;
}

interface Kept {
  readonly conversationId: string;
  readonly always: boolean;
  readonly ahead: number | null;
}

const PATH = "/api/files";
const FILES = "files.1";
const TAKEN_BACK = "files.takenBack.1";
const isKept = isRecord({ conversationId: isText, always: isFlag });
const KEPT_TAKEN_BACK = 100;
/** An address is renewed so long before it ends, or after most of a shorter life. */
const RENEW_MS = 30_000;
const RENEW_AT = 0.8;
const FIRST_SETBACK_MS = 1_000;
const LAST_SETBACK_MS = 60_000;
/** A timer for longer than this is set in steps: browsers count in 32 bits. */
const LONGEST_TIMER_MS = 3_600_000;

export function createFiles(
  env: Env,
  connection: Connection,
  conversation: Store<ConversationView | null>,
  tab: Keep,
  token: () => string,
): Files {
  const view = store<FilesView>({ limits: null, places: new Map(), gone: new Set(), shown: new Set(), always: false });
  let talk: ConversationView | null = null;
  let wanted = new Map<string, Wanted>();
  /** What the server says is gone; expiry this side knows by itself. */
  let refused = new Set<string>();
  /** How far the server's clock is ahead of this device's; null: unknown. */
  let ahead: number | null = null;
  let expiryTimer: Cancel | null = null;
  let takenBack = (tab.read(TAKEN_BACK, isList(isText)) as readonly string[] | null) ?? [];
  let takingBack = false;
  let takeBackTimer: Cancel | null = null;
  let takeBackSetbacks = 0;

  function show(change: Partial<FilesView>): void {
    view.set({ ...view.get(), ...change });
  }

  function keep(): void {
    if (talk !== null) tab.write(FILES, { conversationId: talk.id, always: view.get().always, ahead } satisfies Kept);
  }

  // ------------------------------------------------------------------ which there are

  function look(): void {
    const now = conversation.get();
    if (now?.id !== talk?.id) begin(now);
    else if (now !== null && now.messages !== talk?.messages) {
      talk = now;
      expire();
    } else talk = now;
  }

  function begin(now: ConversationView | null): void {
    for (const { timer } of wanted.values()) timer?.();
    wanted = new Map();
    refused = new Set();
    talk = now;
    const kept = tab.read(FILES, isKept) as Kept | null;
    const same = kept !== null && kept.conversationId === now?.id;
    if (same && isNumber(kept.ahead)) ahead ??= kept.ahead;
    if (!same) tab.forget(FILES);
    show({ places: new Map(), gone: new Set(), shown: new Set(), always: same && kept.always });
    expire();
  }

  function shared(): SharedFile[] {
    return talk?.messages.flatMap(({ file }) => (file === null ? [] : [file])) ?? [];
  }

  /** Notes what is over by now, and waits for the next to be. */
  function expire(): void {
    expiryTimer?.();
    expiryTimer = null;
    const now = env.now() + (ahead ?? 0);
    const all = shared();
    const gone = new Set([...refused, ...all.filter(({ expiresAt }) => expiresAt <= now).map(({ id }) => id)]);
    const before = view.get().gone;
    if (gone.size !== before.size || [...gone].some((id) => !before.has(id))) {
      for (const id of gone) drop(id);
      show({ gone });
    }
    const next = Math.min(...all.filter(({ id }) => !gone.has(id)).map(({ expiresAt }) => expiresAt));
    if (Number.isFinite(next)) expiryTimer = env.after(Math.min(LONGEST_TIMER_MS, next - now), expire);
  }

  // ------------------------------------------------------------------ where they are

  function place(id: string, base: string | null): void {
    const places = new Map(view.get().places);
    if (base === null && !places.has(id)) return;
    const thumb = shared().find((file) => file.id === id)?.thumb === true;
    if (base === null) places.delete(id);
    else places.set(id, { main: `${base}/main`, thumb: thumb ? `${base}/thumb` : null, download: `${base}/download` } satisfies FilePlace);
    show({ places });
  }

  function drop(id: string): void {
    wanted.get(id)?.timer?.();
    wanted.delete(id);
    place(id, null);
  }

  function want(id: string): Wanted {
    const now = wanted.get(id) ?? { until: null, asking: null, timer: null, setbacks: 0, failures: 0, askedAt: -Infinity };
    wanted.set(id, now);
    return now;
  }

  function later(id: string, one: Wanted, ms: number): void {
    one.timer?.();
    one.timer = env.after(Math.min(LONGEST_TIMER_MS, ms), () => {
      one.timer = null;
      void ask(id, one);
    });
  }

  function ask(id: string, one: Wanted): Promise<void> {
    one.timer?.();
    one.timer = null;
    one.asking ??= askNow(id, one).finally(() => {
      one.asking = null;
    });
    return one.asking;
  }

  async function askNow(id: string, one: Wanted): Promise<void> {
    if (talk === null) return;
    one.askedAt = env.now();
    const outcome = await connection.ask("file:open", { conversationId: talk.id, fileId: id });
    // Put away, or gone, meanwhile.
    if (wanted.get(id) !== one) return;
    if ("ok" in outcome) {
      const { base, expiresInMs } = outcome.ok;
      one.setbacks = 0;
      one.until = env.now() + expiresInMs;
      place(id, base);
      later(id, one, Math.max(FIRST_SETBACK_MS, expiresInMs * RENEW_AT, expiresInMs - RENEW_MS));
      return;
    }
    const { error } = outcome;
    const over = error.code === "not_in_conversation" && talk.ended !== null;
    if (error.code === "no_such_file" || over) {
      refused.add(id);
      expire();
    } else if (passes(error) || error.code === "not_in_conversation") {
      const setback = Math.min(LAST_SETBACK_MS, FIRST_SETBACK_MS * 2 ** one.setbacks);
      one.setbacks += 1;
      later(id, one, error.retryInMs ?? setback);
    }
  }

  connection.link.subscribe(() => {
    if (connection.link.get() !== "online") return;
    for (const [id, one] of wanted) if (one.timer !== null && (one.until === null || one.setbacks > 0)) void ask(id, one);
    void tell();
  });

  // ------------------------------------------------------------------ taking back

  function takeBack(id: string): void {
    if (takenBack.includes(id)) return;
    takenBack = [...takenBack, id].slice(-KEPT_TAKEN_BACK);
    tab.write(TAKEN_BACK, takenBack);
    void tell();
  }

  /** One after another, until the server has heard of all. */
  async function tell(): Promise<void> {
    if (takingBack) return;
    takingBack = true;
    takeBackTimer?.();
    takeBackTimer = null;
    for (let id = takenBack[0]; id !== undefined; id = takenBack[0]) {
      if (!(await isTakenBack(id))) {
        const setback = Math.min(LAST_SETBACK_MS, FIRST_SETBACK_MS * 2 ** takeBackSetbacks);
        takeBackSetbacks += 1;
        takeBackTimer = env.after(setback, () => void tell());
        break;
      }
      takeBackSetbacks = 0;
      const done = id;
      takenBack = takenBack.filter((other) => other !== done);
      if (takenBack.length === 0) tab.forget(TAKEN_BACK);
      else tab.write(TAKEN_BACK, takenBack);
    }
    takingBack = false;
  }

  async function isTakenBack(id: string): Promise<boolean> {
    try {
      const { status } = await env.fetch(`${PATH}/${encodeURIComponent(id)}`, undefined, { token: token(), method: "DELETE" });
      // What is refused for good is not this guest's any more, or was gone already.
      return status < 500 && status !== 429 && status !== 401;
    } catch {
      return false;
    }
  }

  conversation.subscribe(look);
  look();
  if (takenBack.length > 0) takeBackTimer = env.after(FIRST_SETBACK_MS, () => void tell());

  return {
    view,
    offers: (limits) => show({ limits }),
    check(file) {
      const { limits } = view.get();
      if (limits === null) return { problem: "kind_refused", limit: null };
      if (file.size === 0) return { problem: "file_empty", limit: null };
      if (file.size > limits.bytes) return { problem: "file_too_large", limit: limits.bytes };
      // What it is is the server's to find out; without a type there is nothing to go by.
      const refuses = file.type !== "" && !limits.kinds.includes(guessKind(file));
      return refuses ? { problem: "kind_refused", limit: null } : null;
    },
    async open(id) {
      if (talk === null || view.get().gone.has(id)) return;
      const one = want(id);
      if (one.until !== null && one.until - env.now() > FIRST_SETBACK_MS) return;
      // While it waits to ask again, asking would only make it longer.
      if (one.until !== null || one.timer === null) await ask(id, one);
    },
    async failed(id) {
      if (talk === null || view.get().gone.has(id)) return;
      const one = want(id);
      one.until = null;
      place(id, null);
      if (env.now() - one.askedAt > 2 * LAST_SETBACK_MS) one.failures = 0;
      one.failures += 1;
      // Those that fail one after another are not at fault themselves.
      if (one.failures === 1) await ask(id, one);
      else later(id, one, Math.min(LAST_SETBACK_MS, FIRST_SETBACK_MS * 2 ** (one.failures - 2)));
    },
    show(id, shown) {
      const now = new Set(view.get().shown);
      if (shown) now.add(id);
      else now.delete(id);
      show({ shown: now });
    },
    alwaysShow(always) {
      show({ always });
      keep();
    },
    erased({ id }, mine) {
      if (mine) takeBack(id);
      refused.add(id);
      expire();
    },
    takeBack,
    clock(at) {
      const now = at - env.now();
      // The answer that took the shortest way is the nearest to the truth.
      if (ahead !== null && now <= ahead && ahead - now < LONGEST_TIMER_MS) return;
      const changed = ahead === null || Math.abs(now - ahead) > FIRST_SETBACK_MS;
      ahead = now;
      if (!changed) return;
      keep();
      expire();
    },
  };
}

/** By its type, as the device has it: the server finds out what it is. */
export function guessKind({ type }: { readonly type: string }): FileKind {
  if (type.startsWith("image/")) return "picture";
  if (type.startsWith("video/")) return "video";
  return type.startsWith("audio/") ? "audio" : "document";
}
