/**
 * Everything the program touches outside itself, as plain functions: a test can be its browser.
 * `browserEnv` is the only place that names browser globals.
 */
import { io, type Socket } from "socket.io-client";
import type { ClientToServerEvents, Connect, ServerToClientEvents } from "./contract.gen";

/** Undoes what it was returned for: a timer, a subscription. */
export type Cancel = () => void;

export interface Storage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** What a line tells its owner. */
export interface LineEvents {
  auth(): Connect;
  connected(): void;
  disconnected(): void;
  /** An attempt failed; with data if it was the server that refused. */
  refused(data: unknown): void;
  pushed(event: string, push: unknown): void;
  /** Any sign of life from the server. */
  heard(): void;
}

/** One Socket.IO connection that never connects again by itself. */
interface Line {
  connect(first: "websocket" | "polling"): void;
  disconnect(): void;
  emit(event: keyof ClientToServerEvents, request: unknown, ack: (answer: unknown) => void): void;
}

export interface Env {
  /** Rejects if there was no answer; `body` is JSON. */
  fetch(path: string, body?: unknown): Promise<{ readonly status: number; readonly json: unknown }>;
  line(events: LineEvents): Line;
  /** Null where the browser keeps nothing. Any call may throw. */
  readonly sessionStorage: Storage | null;
  readonly localStorage: Storage | null;
  /** ms since the epoch, by this device's clock. */
  now(): number;
  after(ms: number, run: () => void): Cancel;
  /** In [0, 1): for jitter. */
  random(): number;
  randomBytes(count: number): Uint8Array;
  /** BCP 47 tags, the preferred first. */
  readonly languages: readonly string[];
  /** False only if the device itself says that it has no network. */
  online(): boolean;
  onNetwork(listener: () => void): void;
  onVisible(listener: () => void): void;
  /** The page may be about to go: the last moment to write things down. */
  onHidden(listener: () => void): void;
  reload(): void;
  /** Whether this tab is the only living one of that id. Holds the id until the page goes. */
  claimTab(id: string): Promise<boolean>;
}

/** Longer than any healthy answer; a person would have pressed reload by then. */
const HTTP_TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 8_000;

export function browserEnv(): Env {
  return {
    async fetch(path, body) {
      const init: RequestInit = { signal: AbortSignal.timeout(HTTP_TIMEOUT_MS), cache: "no-store" };
      const response = await fetch(
        path,
        body === undefined
          ? init
          : { ...init, method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) },
      );
      return { status: response.status, json: (await response.json()) as unknown };
    },
    line: socketLine,
    sessionStorage: storageOf("sessionStorage"),
    localStorage: storageOf("localStorage"),
    now: () => Date.now(),
    after(ms, run) {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
    random: () => Math.random(),
    randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
    languages: navigator.languages,
    online: () => navigator.onLine,
    onNetwork(listener) {
      window.addEventListener("online", listener);
      window.addEventListener("offline", listener);
    },
    onVisible(listener) {
      document.addEventListener("visibilitychange", () => {
        if (document.visibilityState === "visible") listener();
      });
    },
    onHidden(listener) {
      window.addEventListener("pagehide", listener);
      document.addEventListener("visibilitychange", () => {
        if (document.visibilityState === "hidden") listener();
      });
    },
    reload: () => location.reload(),
    claimTab,
  };
}

function socketLine(events: LineEvents): Line {
  const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io({
    autoConnect: false,
    // The connection does this itself: a manager in its back-off cannot be told that the network is back.
    reconnection: false,
    tryAllTransports: true,
    timeout: CONNECT_TIMEOUT_MS,
    auth: (done) => done({ ...events.auth() }),
  });
  socket.on("connect", () => events.connected());
  socket.on("disconnect", () => events.disconnected());
  socket.on("connect_error", (error) => events.refused("data" in error ? error.data : undefined));
  socket.onAny((event: string, push: unknown) => events.pushed(event, push));
  socket.io.on("ping", () => events.heard());
  // Typed per event by the connection; here a request is only carried.
  const emit = socket.emit.bind(socket) as (event: string, request: unknown, ack: (answer: unknown) => void) => void;
  return {
    connect(first) {
      socket.io.opts.transports = first === "websocket" ? ["websocket", "polling"] : ["polling", "websocket"];
      socket.connect();
    },
    disconnect: () => void socket.disconnect(),
    emit,
  };
}

/** Reading the property alone throws where storage is forbidden. */
function storageOf(name: "sessionStorage" | "localStorage"): Storage | null {
  try {
    return window[name];
  } catch {
    return null;
  }
}

/**
 * "Duplicate tab" copies sessionStorage, the tab's id included. A lock is held by one living page only, even a
 * frozen one; without locks (plain http) the others are asked, and an awake one answers.
 */
async function claimTab(id: string): Promise<boolean> {
  const name = `visavis.tab.${id}`;
  if ("locks" in navigator) {
    // A page being reloaded may let go of its lock a moment after its successor starts.
    for (const patience of [0, 50, 150, 300]) {
      await new Promise((resolve) => setTimeout(resolve, patience));
      const mine = await new Promise<boolean>((decide) => {
        const holding = navigator.locks.request(name, { ifAvailable: true }, (lock) => {
          decide(lock !== null);
          return lock === null ? undefined : new Promise<never>(() => undefined);
        });
        holding.catch(() => decide(true));
      });
      if (mine) return true;
    }
    return false;
  }
  if (!("BroadcastChannel" in globalThis)) return true;
  const channel = new BroadcastChannel(name);
  return new Promise((decide) => {
    const alone = setTimeout(() => {
      channel.onmessage = ({ data }) => {
        if (data === "anyone?") channel.postMessage("me");
      };
      decide(true);
    }, 150);
    channel.onmessage = ({ data }) => {
      if (data !== "me") return;
      clearTimeout(alone);
      channel.close();
      decide(false);
    };
    channel.postMessage("anyone?");
  });
}
