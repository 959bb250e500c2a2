/**
 * Files on their way: each is announced, carried over, looked at by the server, and said in the conversation once it
 * was found good. Two at a time; what the network interrupts goes on from where it was. Loaded when somebody shares.
 */
import { ERROR_CODES, type ErrorCode, type SharedFile, type UploadBegun, type UploadState } from "./contract.gen";
import type { Cancel, Env } from "./env";
import type { Files } from "./files";
import type { UploadView } from "./model";
import type { Chosen } from "./sharing";
import { failureOf, passes, UNREACHABLE, type Connection, type Failure, type Outcome } from "./socket";
import type { WritableStore } from "./store";
import { carry as carryByTus, type Carry } from "./transfer";

export interface Uploads {
  add(chosen: Chosen): void;
  cancel(id: string): void;
  retry(id: string): void;
  /** The conversation is over: none of them goes on. */
  end(): void;
}

interface Upload extends Chosen {
  view: UploadView;
  /** What is to be done next; null: nothing, until somebody asks. */
  step: "begin" | "carry" | "check" | null;
  begun: UploadBegun | null;
  /** It was found good, and waits for those before it. */
  found: { readonly file: SharedFile; readonly seal: string } | null;
  /** It was given up by the server once, and begun anew. */
  anew: boolean;
  /** Set while it does something, or waits to: ends that. */
  stop: Cancel | null;
  /** When it last got anywhere. */
  heardAt: number;
  /** In a row: that nobody was reached, and that the server could not do it. */
  silences: number;
  setbacks: number;
  /** How often the server had less of it than was sent. */
  shortfalls: number;
}

const AT_ONCE = 2;
const PATH = "/api/files";
const FIRST_SETBACK_MS = 1_000;
const LAST_SETBACK_MS = 30_000;
/** A server that answers, and cannot: after so many times somebody else has to decide. */
const PATIENCE = 6;
/** Nothing moves for so long: the connection is dead, and does not know it. */
const STALLED_MS = 30_000;
const STALLED_ON_RETURN_MS = 2_000;
/** The server's answer while it checks waits some seconds for news. */
const CHECK_TIMEOUT_MS = 40_000;
const CHECK_AGAIN_MS = 1_000;
const MAX_NAME = 1_000;
const FINAL: ReadonlySet<string> = new Set<ErrorCode>([
  "kind_refused",
  "file_too_large",
  "file_infected",
  "picture_too_large",
  "file_unreadable",
  "file_empty",
]);
/** What a refusal without words means: an answer to HEAD has none. */
const STATUSES: Readonly<Record<number, ErrorCode>> = {
  401: "token_invalid",
  403: "not_in_conversation",
  404: "no_such_file",
  409: "offset_mismatch",
  410: "no_such_file",
  413: "file_too_large",
  415: "kind_refused",
  429: "rate_limited",
  503: "unavailable",
  507: "storage_full",
};

export function createUploads(
  env: Env,
  connection: Connection,
  outside: {
    readonly list: WritableStore<readonly UploadView[]>;
    readonly files: Pick<Files, "takeBack" | "view">;
    token(): string;
    say(conversationId: string, file: SharedFile, seal: string, text: string, replyTo: string | null): boolean;
  },
  carry: Carry = carryByTus,
): Uploads {
  const { list, files } = outside;
  let uploads: readonly Upload[] = [];
  /** The server asked to begin nothing before this. */
  let notBefore = 0;
  let pumpTimer: Cancel | null = null;

  function show(one: Upload, change: Partial<UploadView>): void {
    one.view = { ...one.view, ...change };
    list.set(list.get().map((view) => (view.id === one.view.id ? one.view : view)));
  }

  /** While nobody is reached, another attempt is no news. */
  function showWork(one: Upload, phase: "uploading" | "checking"): void {
    show(one, { phase: one.silences > 0 ? "paused" : phase });
  }

  // ------------------------------------------------------------------ the queue

  /** Those that the network is busy with; what is only looked at leaves the way to the next. */
  function takesTurn({ step, stop, view }: Upload): boolean {
    return stop !== null && step !== null && step !== "check" && view.phase !== "failed";
  }

  /** What was just spoken does not wait behind films. */
  function hasRoom({ view }: Upload): boolean {
    return uploads.filter(takesTurn).length < (view.kind === "voice" ? AT_ONCE + 1 : AT_ONCE);
  }

  function pump(): void {
    pumpTimer?.();
    pumpTimer = null;
    const ready = uploads.filter((one) => one.step !== null && one.stop === null && hasRoom(one));
    if (ready.length === 0) return;
    const wait = notBefore - env.now();
    const next = ready.find(({ step }) => step !== "begin" || wait <= 0);
    if (next === undefined) pumpTimer = env.after(wait, pump);
    else {
      work(next);
      pump();
    }
  }

  /** Does the next step, in the name of one turn: what is stopped is not heard of any more. */
  function work(one: Upload): void {
    const turn: { over: boolean; halt: Cancel | null } = { over: false, halt: null };
    one.stop = () => {
      turn.over = true;
      turn.halt?.();
    };
    const going = () => !turn.over;
    one.heardAt = env.now();
    if (one.step === "carry") turn.halt = send(one, going);
    else if (one.step === "check") void check(one, going);
    else void begin(one, going);
  }

  function rest(one: Upload): void {
    one.stop?.();
    one.stop = null;
  }

  /** On to another step, now or later. */
  function go(one: Upload, step: Upload["step"], afterMs = 0): void {
    rest(one);
    one.step = step;
    if (step !== null && (afterMs > 0 || step === "check")) {
      // What waits for itself keeps its turn.
      if (afterMs > 0) one.stop = env.after(afterMs, () => work(one));
      else work(one);
    }
    pump();
  }

  // ------------------------------------------------------------------ the steps

  async function call<T>(path: string, body?: unknown, timeoutMs?: number): Promise<Outcome<T>> {
    try {
      const { status, json } = await env.fetch(path, body, {
        token: outside.token(),
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
      });
      if (status >= 200 && status < 300) return { ok: json as T };
      return { error: refusalOf(status, json) };
    } catch {
      return UNREACHABLE;
    }
  }

  async function begin(one: Upload, going: () => boolean): Promise<void> {
    const { conversationId, file, view } = one;
    showWork(one, "uploading");
    if (!(await env.canRead(file))) {
      if (going()) fail(one, "unreadable_here");
      return;
    }
    if (!going()) return;
    const name = Array.from(file.name.replace(/\p{Surrogate}/gu, "\ufffd")).slice(0, MAX_NAME).join("") || "file";
    const outcome = await call<UploadBegun>(PATH, { conversationId, name, bytes: file.size, voice: view.kind === "voice" });
    if (!going()) {
      // Given up meanwhile: the server need not keep a place for it.
      if ("ok" in outcome) files.takeBack(outcome.ok.fileId);
      return;
    }
    if ("error" in outcome) {
      await trouble(one, outcome.error, going);
      return;
    }
    one.begun = outcome.ok;
    wellAgain(one);
    go(one, "carry", 0);
  }

  function send(one: Upload, going: () => boolean): Cancel {
    const { begun, file } = one;
    let watch: Cancel | null = null;
    const lookAgain = () => {
      watch = env.after(Math.max(FIRST_SETBACK_MS, one.heardAt + STALLED_MS - env.now()), () => {
        if (env.now() - one.heardAt < STALLED_MS) lookAgain();
        else void trouble(one, UNREACHABLE.error, going);
      });
    };
    showWork(one, "uploading");
    let sent = -1;
    const abort = carry(file, {
      url: begun?.url ?? "",
      chunkBytes: files.view.get().limits?.chunkBytes ?? file.size,
      token: outside.token,
      progress(bytes) {
        if (bytes > sent) one.heardAt = env.now();
        // The first word is where it stands, and says that somebody is there.
        sent = bytes;
        if (one.view.phase !== "uploading") show(one, { phase: "uploading" });
        const share = Math.min(1, bytes / file.size);
        // A step of a hundredth is all that can be seen.
        if (Math.abs(share - one.view.share) >= 0.01 || share === 1) show(one, { share });
      },
      taken: () => wellAgain(one),
      done() {
        wellAgain(one);
        show(one, { share: 1 });
        go(one, "check");
      },
      failed(status, answer) {
        const error = status === null ? UNREACHABLE.error : refusalOf(status, answer);
        void trouble(one, error, going);
      },
    });
    lookAgain();
    return () => {
      watch?.();
      abort();
    };
  }

  async function check(one: Upload, going: () => boolean): Promise<void> {
    showWork(one, "checking");
    const asked = env.now();
    const outcome = await call<UploadState>(one.begun?.url ?? "", undefined, CHECK_TIMEOUT_MS);
    if (!going()) return;
    if ("error" in outcome) {
      await trouble(one, outcome.error, going);
      return;
    }
    wellAgain(one);
    const { phase, problem, limit, seal, file } = outcome.ok;
    if (phase === "ready" && seal !== null && file !== null) {
      one.found = { file, seal };
      go(one, null);
      sayFound();
    } else if (phase === "refused") {
      one.begun = null;
      fail(one, ERROR_CODES.find((code) => code === problem) ?? "internal", limit);
    } else if (phase === "uploading") {
      // It has less than was sent.
      one.shortfalls += 1;
      if (one.shortfalls > PATIENCE) fail(one, "internal");
      else go(one, "carry", FIRST_SETBACK_MS);
    } else go(one, "check", Math.max(0, CHECK_AGAIN_MS - (env.now() - asked)));
  }

  /** Says what was found good, unless something before it, of what was chosen together, may still come. */
  function sayFound(): void {
    const one = uploads.find(({ found, batch }, index) => {
      const before = uploads.slice(0, index).filter((other) => other.batch === batch);
      return found !== null && before.every(({ view }) => view.phase === "failed");
    });
    if (one === undefined || one.found === null) return;
    const { conversationId, view, replyTo, found } = one;
    one.begun = null;
    take(one);
    if (!outside.say(conversationId, found.file, found.seal, view.text, replyTo)) files.takeBack(found.file.id);
    sayFound();
    pump();
  }

  // ------------------------------------------------------------------ what goes wrong

  function wellAgain(one: Upload): void {
    one.silences = 0;
    one.setbacks = 0;
  }

  async function trouble(one: Upload, error: Failure, going: () => boolean): Promise<void> {
    const { code, retryInMs, data } = error;
    if (code === "unreachable") {
      // The same silence is heard when the file itself is not there any more.
      const readable = await env.canRead(one.file);
      if (!going()) return;
      if (!readable) {
        fail(one, "unreadable_here");
        return;
      }
      show(one, { phase: "paused" });
      one.silences += 1;
      go(one, one.step, Math.min(LAST_SETBACK_MS, FIRST_SETBACK_MS * 2 ** (one.silences - 1)));
      return;
    }
    one.silences = 0;
    if (code === "rate_limited") {
      const wait = retryInMs ?? LAST_SETBACK_MS;
      show(one, { phase: "waiting" });
      if (one.step === "begin") {
        // The others would be told the same.
        notBefore = env.now() + wait;
        go(one, "begin");
      } else go(one, one.step, wait);
      return;
    }
    if (code === "no_such_file" && one.begun !== null && !one.anew) {
      one.anew = true;
      one.begun = null;
      show(one, { share: 0 });
      go(one, "begin");
      return;
    }
    const heals = passes(error) || code === "offset_mismatch" || code === "token_invalid" || code === "session_expired";
    one.setbacks += 1;
    if (!heals || one.setbacks > PATIENCE) {
      if (code === "no_such_file") one.begun = null;
      fail(one, code, typeof data.limit === "number" ? data.limit : null);
      return;
    }
    if (retryInMs !== null) show(one, { phase: "waiting" });
    go(one, one.step, retryInMs ?? Math.min(LAST_SETBACK_MS, FIRST_SETBACK_MS * 2 ** (one.setbacks - 1)));
  }

  function fail(one: Upload, problem: NonNullable<UploadView["problem"]>, limit: number | null = null): void {
    const retry = problem !== "unreadable_here" && !FINAL.has(problem);
    show(one, { phase: "failed", problem, limit, retry });
    if (!retry) giveUp(one);
    go(one, null);
    sayFound();
  }

  function giveUp(one: Upload): void {
    if (one.begun !== null) files.takeBack(one.begun.fileId);
    one.begun = null;
  }

  /** Off the list. */
  function take(one: Upload): void {
    rest(one);
    uploads = uploads.filter((other) => other !== one);
    list.set(list.get().filter(({ id }) => id !== one.view.id));
    if (one.view.preview !== null) env.revokeUrl(one.view.preview);
  }

  function interrupt(one: Upload): void {
    const turn = one.stop;
    if (turn !== null) void trouble(one, UNREACHABLE.error, () => one.stop === turn);
  }

  /** Somebody may be there again: nobody waits any longer than he has to. */
  function back(): void {
    for (const one of uploads) {
      if (one.stop === null || one.step === null) continue;
      const stalled = one.step === "carry" && env.now() - one.heardAt > STALLED_ON_RETURN_MS;
      if (one.view.phase === "paused" || stalled) {
        rest(one);
        work(one);
      }
    }
  }

  // A device that has its network back connects anew first of all.
  connection.link.subscribe(() => {
    if (connection.link.get() === "online") back();
  });
  env.onNetwork(() => {
    if (env.online()) return;
    for (const one of uploads) if (one.step === "carry" && one.view.phase === "uploading") interrupt(one);
  });

  return {
    add(chosen) {
      const step = chosen.view.phase === "failed" ? null : "begin";
      const counts = { heardAt: env.now(), silences: 0, setbacks: 0, shortfalls: 0 };
      uploads = [...uploads, { ...chosen, step, begun: null, found: null, anew: false, stop: null, ...counts }];
      pump();
    },
    cancel(id) {
      const one = uploads.find(({ view }) => view.id === id);
      if (one === undefined) return;
      take(one);
      giveUp(one);
      sayFound();
      pump();
    },
    retry(id) {
      const one = uploads.find(({ view }) => view.id === id);
      if (one === undefined || one.view.phase !== "failed" || !one.view.retry) return;
      one.anew = false;
      one.shortfalls = 0;
      wellAgain(one);
      show(one, { phase: "waiting", problem: null, limit: null, retry: false });
      go(one, one.begun === null ? "begin" : "carry");
    },
    end() {
      for (const one of uploads) rest(one);
      const all = uploads;
      uploads = [];
      list.set([]);
      for (const one of all) {
        giveUp(one);
        if (one.view.preview !== null) env.revokeUrl(one.view.preview);
      }
      pump();
    },
  };
}

function refusalOf(status: number, answer: unknown): Failure {
  // What a proxy says that found nobody behind it, whatever its words: as patient as with a lost network.
  if (status === 502 || status === 504) return UNREACHABLE.error;
  const failure = failureOf((answer as { readonly error?: unknown } | null)?.error);
  if (failure.code !== "unreachable") return failure;
  // Something between answered, or the answer had no room for words.
  const code = STATUSES[status];
  return code === undefined ? (status >= 500 ? UNREACHABLE.error : { ...failure, code: "internal" }) : { ...failure, code };
}
