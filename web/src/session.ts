/**
 * Who this browser is to the server: the first visit's questions, the guest, the token that keeps it alive.
 *
 * The token lives as long as the tab, so that a second tab is a second guest; what was answered once lives in the
 * browser as the server's `device` token. Whether a token is still good is the server's to say: this device's clock
 * may be wrong.
 */
import { CONTRACT, type ErrorCode, type GuestCreated, type Profile, type ServerInfo } from "./contract.gen";
import type { Cancel, Env } from "./env";
import type { Keep } from "./keep";
import type { SessionView, Store } from "./model";
import { isNumber, isRecord, isText } from "./shape";
import { failureOf, UNREACHABLE, type Connection, type Failure, type Outcome } from "./socket";
import { store } from "./store";

/** What survives a reload of the tab. */
interface Guest {
  readonly token: string;
  readonly expiresAt: number;
  readonly profile: Profile;
}

export interface Session {
  readonly view: Store<SessionView>;
  token(): string;
  start(): Promise<void>;
  enter(answers: { readonly birthDate: string | null; readonly acceptRules: boolean }): Promise<void>;
  takeBack(): void;
}

const GUEST = "guest.1";
const isGuest = isRecord({
  token: isText,
  expiresAt: isNumber,
  profile: isRecord({ name: isText, hue: isNumber }),
});
const TAB = "tab";
const RELOADED = "reloaded";
const DEVICE = "device";
const UNDER_AGE = "underAge";
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 30_000;
const REFRESH_RETRY_MS = 60_000;
/** However wrong this device's clock is, a token of two hours is renewed in time. */
const LONGEST_REFRESH_MS = 60 * 60_000;
/** A page that was hidden for longer may hold a connection that died unnoticed. */
const DOZE_MS = 15_000;
const PROBE_MS = 2_500;
/** During an update each reload may bring the former page again, or one that is ahead of its worker. */
const RELOAD_PAUSE_MS = 30_000;

export function createSession(
  env: Env,
  connection: Connection,
  keeps: { readonly tab: Keep; readonly browser: Keep },
  outside: {
    info(info: ServerInfo): void;
    /** A new guest: whatever belonged to the former one is gone. */
    anotherGuest(): void;
    /** This tab is a copy of a living one and must not act as the same guest. */
    copied(): void;
  },
): Session {
  const { tab, browser } = keeps;
  const view = store<SessionView>({ phase: "loading" });
  let guest = tab.read(GUEST, isGuest) as Guest | null;
  let info: ServerInfo | null = null;
  let retries = 0;
  let retryTimer: Cancel | null = null;
  let refreshTimer: Cancel | null = null;
  let hiddenAt: number | null = null;
  /** No connection has taken the current token yet. */
  let untried = false;

  // ------------------------------------------------------------------ HTTP

  async function call<T>(path: string, body?: unknown): Promise<Outcome<T>> {
    try {
      const { status, json } = await env.fetch(path, body);
      if (status >= 200 && status < 300) return { ok: json as T };
      return { error: failureOf((json as { readonly error?: unknown } | null)?.error) };
    } catch {
      return UNREACHABLE;
    }
  }

  async function learn(): Promise<Failure | null> {
    if (info !== null) return null;
    const outcome = await call<ServerInfo>("/api/info");
    if ("error" in outcome) return outcome.error;
    info = outcome.ok;
    outside.info(info);
    return null;
  }

  function createGuest(answers: { birthDate: string | null; rules: number | null }): Promise<Outcome<GuestCreated>> {
    const device = browser.read(DEVICE);
    return call("/api/guests", { ...answers, device: typeof device === "string" ? device : null });
  }

  // ------------------------------------------------------------------ getting in

  async function start(): Promise<void> {
    if (!(await env.claimTab(tabId()))) {
      guest = null;
      tab.forget(GUEST);
      outside.copied();
      await env.claimTab(newTabId());
    }
    await begin();
  }

  function tabId(): string {
    const id = tab.read(TAB);
    return typeof id === "string" ? id : newTabId();
  }

  function newTabId(): string {
    const id = Array.from(env.randomBytes(8), (byte) => byte.toString(16).padStart(2, "0")).join("");
    tab.write(TAB, id);
    return id;
  }

  async function begin(): Promise<void> {
    retryTimer?.();
    retryTimer = null;
    const refusedAge = browser.read(UNDER_AGE);
    if (typeof refusedAge === "number") {
      view.set({ phase: "underAge", minimumAge: refusedAge });
      return;
    }
    if (guest !== null) {
      enterAs(guest);
      // The lobby wants to know what the server offers, but nobody waits for it.
      void learnEventually();
      return;
    }
    const problem = await learn();
    if (problem !== null) fail(problem);
    else if (info !== null && info.contract !== CONTRACT && mayReload()) reload();
    else if (browser.read(DEVICE) === null) welcome(true, null);
    else await comeAs({ birthDate: null, rules: null });
  }

  async function learnEventually(): Promise<void> {
    const problem = await learn();
    if (problem !== null) env.after(retryDelay(problem), () => void learnEventually());
  }

  /** Asks for a guest and goes where the answer leads; whether asked by a person or not shows in the view. */
  async function comeAs(answers: { birthDate: string | null; rules: number | null }): Promise<void> {
    const outcome = await createGuest(answers);
    if ("ok" in outcome) {
      const { token, expiresAt, device, profile } = outcome.ok;
      browser.write(DEVICE, device);
      guest = { token, expiresAt, profile };
      tab.write(GUEST, guest);
      untried = true;
      enterAs(guest);
      return;
    }
    const { error } = outcome;
    const asked = view.get().phase === "welcome";
    if (error.code === "under_age") {
      const minimumAge = typeof error.data.minimumAge === "number" ? error.data.minimumAge : (info?.minimumAge ?? 18);
      browser.write(UNDER_AGE, minimumAge);
      view.set({ phase: "underAge", minimumAge });
    } else if (error.code === "birth_date_needed") welcome(true, asked ? error.code : null);
    else if (error.code === "rules_not_accepted") welcome(answers.birthDate !== null, asked ? error.code : null);
    else if (error.code === "token_invalid") {
      // A device token of other times: whatever it remembered is asked again.
      const knewDevice = browser.read(DEVICE) !== null;
      browser.forget(DEVICE);
      if (asked && knewDevice) await comeAs(answers);
      else welcome(true, null);
    } else if (asked) welcome(null, error.code);
    else fail(error);
  }

  function welcome(birthDateUnknown: boolean | null, problem: ErrorCode | "unreachable" | null): void {
    const now = view.get();
    const minimumAge = info?.minimumAge ?? 18;
    const needs =
      birthDateUnknown === null && now.phase === "welcome"
        ? now.needs
        : { birthDate: birthDateUnknown !== false && minimumAge > 0, rules: true };
    view.set({
      phase: "welcome",
      needs,
      minimumAge,
      busy: false,
      // The nearest in meaning that a person can act on: something between here and there is away.
      problem: problem === "unreachable" ? "unavailable" : problem,
    });
  }

  function retryDelay(failure: Failure): number {
    const delay = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** retries) * (1 + env.random() / 2);
    retries += 1;
    return Math.max(delay, failure.retryInMs ?? 0);
  }

  function fail(failure: Failure): void {
    const delay = retryDelay(failure);
    view.set({ phase: "failed", problem: failure.code, retryAt: env.now() + delay });
    retryTimer?.();
    retryTimer = env.after(delay, () => void begin());
  }

  // ------------------------------------------------------------------ another version

  /** Takes the turn if it does. Never where it would not be remembered: such a page would reload for ever. */
  function mayReload(): boolean {
    const last = tab.read(RELOADED);
    // Absolute, because a clock that was set back must not stop it.
    if (typeof last === "number" && Math.abs(env.now() - last) < RELOAD_PAUSE_MS) return false;
    return tab.write(RELOADED, env.now());
  }

  function reload(): void {
    connection.close();
    env.reload();
  }

  /** A worker of another version said no; meanwhile the connection looks for one of this page's. */
  async function meetOtherVersion(): Promise<void> {
    if (!mayReload()) return;
    // Any worker answers. If one still speaks as this page does, or does so already, it is found without a reload.
    const outcome = await call<ServerInfo>("/api/info");
    if ("error" in outcome) tab.forget(RELOADED);
    else if (outcome.ok.contract !== CONTRACT) reload();
  }

  // ------------------------------------------------------------------ being in

  function enterAs({ profile, expiresAt }: Guest): void {
    view.set({ phase: "ready", profile, link: connection.link.get() });
    refreshAfter((expiresAt - env.now()) / 2);
    connection.open();
  }

  function refreshAfter(ms: number): void {
    refreshTimer?.();
    const delay = Math.min(LONGEST_REFRESH_MS, Math.max(REFRESH_RETRY_MS, ms));
    refreshTimer = env.after(delay, () => void refresh());
  }

  async function refresh(timeoutMs?: number): Promise<void> {
    const outcome = await connection.ask("session:refresh", {}, timeoutMs);
    if (guest === null) return;
    if ("error" in outcome) {
      refreshAfter(outcome.error.retryInMs ?? REFRESH_RETRY_MS);
      return;
    }
    guest = { ...guest, ...outcome.ok };
    tab.write(GUEST, guest);
    refreshAfter((guest.expiresAt - env.now()) / 2);
  }

  function listen(): void {
    connection.on("session:state", ({ profile }) => {
      retries = 0;
      untried = false;
      tab.forget(RELOADED);
      if (guest === null) return;
      guest = { ...guest, profile };
      tab.write(GUEST, guest);
      view.set({ phase: "ready", profile, link: "online" });
    });
    connection.on("session:replaced", () => {
      connection.close();
      refreshTimer?.();
      view.set({ phase: "replaced" });
    });
    connection.on("session:move", ({ inMs }) => connection.move(inMs));
    connection.onRefused((failure) => {
      if (failure.code === "session_expired" || failure.code === "token_invalid") {
        guest = null;
        tab.forget(GUEST);
        refreshTimer?.();
        outside.anotherGuest();
        // A brand-new guest refused is the server's trouble, not ours to repeat without a pause.
        if (untried) fail(failure);
        else void begin();
      } else fail(failure);
    });
    connection.onOtherVersion(() => void meetOtherVersion());
    const show = () => {
      const now = view.get();
      if (now.phase === "ready") view.set({ ...now, link: connection.link.get(), hold: connection.hold.get() });
    };
    connection.link.subscribe(show);
    connection.hold.subscribe(show);
    env.onHidden(() => {
      hiddenAt ??= env.now();
    });
    env.onVisible(() => {
      const away = hiddenAt === null ? 0 : env.now() - hiddenAt;
      hiddenAt = null;
      // Asking anything finds out whether the connection lives; silence makes it a new one.
      if (away > DOZE_MS) void refresh(PROBE_MS);
    });
  }

  return {
    view,
    token: () => guest?.token ?? "",
    start() {
      listen();
      return start();
    },
    async enter({ birthDate, acceptRules }) {
      const now = view.get();
      if (now.phase !== "welcome" || now.busy) return;
      view.set({ ...now, busy: true, problem: null });
      await comeAs({ birthDate, rules: acceptRules && info !== null ? info.rules : null });
    },
    takeBack() {
      const { phase } = view.get();
      if (phase !== "replaced" && phase !== "failed") return;
      retries = 0;
      void begin();
    },
  };
}
