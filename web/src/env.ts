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
export interface Line {
  connect(first: "websocket" | "polling"): void;
  disconnect(): void;
  emit(event: keyof ClientToServerEvents, request: unknown, ack: (answer: unknown) => void): void;
}

/** Microphones, cameras, screens and peer connections, as the browser's own objects. */
export interface MediaEnv {
  /** Why nothing of it is to be had on this page. */
  readonly missing: "insecure" | "unsupported" | null;
  readonly canCall: boolean;
  readonly canShareScreen: boolean;
  readonly canChooseSpeaker: boolean;
  open(constraints: MediaStreamConstraints): Promise<MediaStream>;
  openScreen(): Promise<MediaStream>;
  list(): Promise<readonly MediaDeviceInfo[]>;
  onDevices(listener: () => void): void;
  /** Null where the browser does not say. */
  permission(kind: "microphone" | "camera"): Promise<PermissionState | null>;
  stream(tracks: readonly MediaStreamTrack[]): MediaStream;
  /** How loud a track is right now, 0 to 1. */
  meter(track: MediaStreamTrack): { level(): number; close(): void };
  /** From a touch: lets sound be measured from now on, where the browser waits for one. */
  wake(): void;
  /** Records a track, as the first of these media types that the browser can make, or as its own. Throws if it cannot. */
  record(track: MediaStreamTrack, types: readonly string[]): { stop(): Promise<Blob> };
  peer(configuration: RTCConfiguration): RTCPeerConnection;
  codecs(kind: "audio" | "video"): readonly RTCRtpCodec[];
}

/** What a request beyond GET and POST needs. */
interface Request {
  readonly method?: "DELETE";
  /** The guest's token, for what belongs to that guest. */
  readonly token?: string;
  /** How long to wait for an answer, where the server may take its time. */
  readonly timeoutMs?: number;
}

export interface Env {
  /** Rejects if there was no answer; `body` is JSON, and so is what comes back: null if that was nothing. */
  fetch(path: string, body?: unknown, request?: Request): Promise<{ readonly status: number; readonly json: unknown }>;
  /** Fetches bytes; says how many are here meanwhile. Null if they were refused; rejects if there was no answer. */
  fetchBytes(path: string, token: string, progress: (bytes: number) => void): Promise<Blob | null>;
  /** Hands a file over to the browser's own download. */
  saveFile(bytes: Blob, name: string): void;
  /** Whether the bytes of a chosen file can still be had: it may have been deleted, or changed. */
  canRead(file: Blob): Promise<boolean>;
  /** An address at which the page itself can show these bytes, until it is revoked. */
  urlOf(bytes: Blob): string;
  revokeUrl(url: string): void;
  /** From now on the browser asks before the page goes. */
  askBeforeGoing(): Cancel;
  readonly media: MediaEnv;
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
  /** The way to the network became another one, as from Wi-Fi to mobile. */
  onPath(listener: () => void): void;
  onVisible(listener: () => void): void;
  /** The page may be about to go: the last moment to write things down. */
  onHidden(listener: () => void): void;
  /** The page goes now. */
  onGone(listener: () => void): void;
  reload(): void;
  /** Whether this tab is the only living one of that id. Holds the id until the page goes. */
  claimTab(id: string): Promise<boolean>;
}

/** Longer than any healthy answer; a person would have pressed reload by then. */
const HTTP_TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 8_000;
/** Speech is clear with it, and five minutes are two megabytes. */
const VOICE_BITS_PER_SECOND = 48_000;

export function browserEnv(): Env {
  return {
    async fetch(path, body, { method, token, timeoutMs = HTTP_TIMEOUT_MS } = {}) {
      const headers: Record<string, string> = token === undefined ? {} : { Authorization: `Bearer ${token}` };
      const init: RequestInit = { signal: AbortSignal.timeout(timeoutMs), cache: "no-store", headers };
      if (method !== undefined) init.method = method;
      if (body !== undefined) {
        init.method = "POST";
        headers["Content-Type"] = "application/json";
        init.body = JSON.stringify(body);
      }
      const response = await fetch(path, init);
      const text = await response.text();
      return { status: response.status, json: text === "" ? null : (JSON.parse(text) as unknown) };
    },
    async fetchBytes(path, token, progress) {
      const response = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
      if (!response.ok || response.body === null) return null;
      const parts: Uint8Array<ArrayBuffer>[] = [];
      let bytes = 0;
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return new Blob(parts, { type: response.headers.get("Content-Type") ?? "" });
        parts.push(value);
        bytes += value.length;
        progress(bytes);
      }
    },
    saveFile(bytes, name) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(bytes);
      link.download = name;
      link.click();
      // The download has begun by then, and the bytes need not stay for as long as the page.
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
    canRead: (file) =>
      file.slice(0, 1).arrayBuffer().then(
        () => true,
        () => false,
      ),
    urlOf: (bytes) => URL.createObjectURL(bytes),
    revokeUrl: (url) => URL.revokeObjectURL(url),
    askBeforeGoing() {
      // Only while needed: a page that listens to it cannot be put aside and taken up again.
      const ask = (event: Event) => event.preventDefault();
      window.addEventListener("beforeunload", ask);
      return () => window.removeEventListener("beforeunload", ask);
    },
    media: browserMedia(),
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
    onPath(listener) {
      // Not in every browser, and where it is it also tells of mere estimates.
      const { connection } = navigator as { connection?: EventTarget & { readonly type?: string } };
      let type = connection?.type;
      connection?.addEventListener("change", () => {
        if (connection.type === type) return;
        type = connection.type;
        listener();
      });
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
    onGone: (listener) => window.addEventListener("pagehide", listener),
    reload: () => location.reload(),
    claimTab,
  };
}

function browserMedia(): MediaEnv {
  // Absent on a page without https, whatever the types say.
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  let context: AudioContext | null = null;
  const sound = () => {
    if (context !== null) return context;
    context = new AudioContext();
    // After a reload nobody has touched the page yet, and without a touch it stays suspended.
    const wake = () => void context?.resume().catch(() => undefined);
    for (const touch of ["pointerup", "keydown"]) window.addEventListener(touch, wake, { once: true, passive: true });
    return context;
  };
  return {
    missing: devices !== undefined ? null : isSecureContext ? "unsupported" : "insecure",
    canCall: "RTCPeerConnection" in window,
    canShareScreen: devices !== undefined && "getDisplayMedia" in devices,
    canChooseSpeaker: "setSinkId" in HTMLMediaElement.prototype,
    open: (constraints) => devices?.getUserMedia(constraints) ?? Promise.reject(new Error("no devices")),
    openScreen: () => devices?.getDisplayMedia({ video: true, audio: true }) ?? Promise.reject(new Error("no screen")),
    list: () => devices?.enumerateDevices() ?? Promise.resolve([]),
    onDevices: (listener) => devices?.addEventListener("devicechange", listener),
    async permission(kind) {
      try {
        return (await navigator.permissions.query({ name: kind })).state;
      } catch {
        // Some browsers do not know these names.
        return null;
      }
    },
    stream: (tracks) => new MediaStream([...tracks]),
    meter(track) {
      const source = sound().createMediaStreamSource(new MediaStream([track]));
      const analyser = sound().createAnalyser();
      analyser.fftSize = 1024;
      source.connect(analyser);
      const samples = new Float32Array(analyser.fftSize);
      return {
        level() {
          analyser.getFloatTimeDomainData(samples);
          const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
          return Math.min(1, Math.sqrt(power));
        },
        close: () => source.disconnect(),
      };
    },
    wake: () => void context?.resume().catch(() => undefined),
    record(track, types) {
      const mimeType = types.find((type) => MediaRecorder.isTypeSupported(type));
      const recorder = new MediaRecorder(new MediaStream([track]), {
        ...(mimeType === undefined ? {} : { mimeType }),
        audioBitsPerSecond: VOICE_BITS_PER_SECOND,
      });
      const parts: Blob[] = [];
      recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
      // It also stops by itself, when its track ends.
      const stopped = new Promise<void>((resolve) => recorder.addEventListener("stop", () => resolve()));
      recorder.start();
      return {
        async stop() {
          if (recorder.state !== "inactive") recorder.stop();
          await stopped;
          return new Blob(parts, { type: recorder.mimeType });
        },
      };
    },
    peer: (configuration) => new RTCPeerConnection(configuration),
    codecs: (kind) => RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [],
  };
}

function socketLine(events: LineEvents): Line {
  const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io({
    autoConnect: false,
    // A second line, while moving, is a connection of its own.
    forceNew: true,
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
      // By it a proxy finds the worker of one connection's requests; another attempt may meet another worker.
      socket.io.opts.query = { k: newKey() };
      socket.connect();
    },
    disconnect: () => void socket.disconnect(),
    emit,
  };
}

function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
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
