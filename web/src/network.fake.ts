/**
 * A small world for tests: browsers, a server that follows the contract, and a network between them whose weather a
 * test decides. Time stands still unless a test lets it run; everything random comes from one seed.
 */
import {
  CONTRACT,
  type BeginUpload,
  type ClientToServerEvents,
  type Connect,
  type Conversation,
  type LobbyState,
  type Profile,
  type ServerToClientEvents,
} from "./contract.gen";
import { FakeCalls, type Request as CallRequest } from "./calls.fake";
import type { Env, LineEvents, Storage } from "./env";
import { FakeFiles } from "./files.fake";
import * as flow from "./flow";
import type { Moment, Moments, Visavis } from "./model";
import { FakeDevices, FakeMedia } from "./peer.fake";
import type { PushOf, RequestOf } from "./socket";
import { createUploads } from "./uploads";
import { createVisavis } from "./visavis";
import * as voice from "./voice";

/** A small seeded generator (mulberry32, Tommy Ettinger, public domain). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

class Clock {
  now = 1_800_000_000_000;
  #timers: Timer[] = [];
  #order = 0;

  after(ms: number, run: () => void): () => void {
    const timer = { at: this.now + Math.max(0, ms), order: (this.#order += 1), run };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Lets time pass, with everything that falls due in it. */
  async run(ms: number): Promise<void> {
    const end = this.now + ms;
    await settle();
    for (;;) {
      let next: Timer | undefined;
      for (const timer of this.#timers) {
        if (timer.at > end) continue;
        if (!next || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) next = timer;
      }
      if (next === undefined) break;
      const due = next;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.now = due.at;
      due.run();
      await settle();
    }
    this.now = end;
  }
}

/** Longer than any chain of promises in the program. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 24; turn += 1) await Promise.resolve();
}

interface Weather {
  /** Share of chat packets that vanish, each way; requests, acks and pushes alike. */
  readonly lost: number;
  /** Share of pushes that come twice. */
  readonly repeated: number;
  /** Share of chat messages that the server refuses for the moment. */
  readonly refused: number;
  readonly fastest: number;
  readonly slowest: number;
}

export const CALM: Weather = { lost: 0, repeated: 0, refused: 0, fastest: 10, slowest: 10 };
export const STORM: Weather = { lost: 0.25, repeated: 0.2, refused: 0.1, fastest: 5, slowest: 900 };

export interface Guest {
  readonly token: string;
  readonly profile: Profile;
  connection: Connected | null;
  talk: Talk | null;
  searching: boolean;
  mode: Conversation["mode"];
}

interface Talk {
  readonly id: string;
  readonly mode: Conversation["mode"];
  readonly calls: FakeCalls;
  readonly guests: readonly [Guest, Guest];
  readonly startedAt: number;
}

/** One connection as the server sees it. */
interface Connected {
  readonly page: Page;
  readonly events: LineEvents;
  open: boolean;
  /** Nothing comes through, and nobody notices. */
  mute: boolean;
  /** What has to wait until the client knows where it stands. */
  early: (() => void)[] | null;
}

type Handled = { readonly ok: unknown } | { readonly error: { readonly code: string; readonly retryInMs?: number } };

export class Network {
  readonly clock = new Clock();
  readonly random: () => number;
  weather: Weather = CALM;
  /** Nobody is home: every attempt fails and every request vanishes. */
  down = false;
  /** What each worker speaks; a request meets any of them. */
  contracts: readonly string[] = [CONTRACT];
  /** In the air, as far from the server as in life. */
  readonly media = new FakeMedia(this.clock);
  readonly files = new FakeFiles(this.clock);
  modes: readonly Conversation["mode"][] = ["text"];
  relays = 1;
  recorderFound = true;
  /** Recordings of everybody, by id. */
  recordings: Record<string, number> = {};
  minimumAge = 18;
  rules = 1;
  online: number | null = null;
  /** Refuses the next connections, first in first out. */
  readonly refusals: { readonly code: string; readonly [data: string]: unknown }[] = [];
  /** How long after a newer connection an older one of the guest hears that it was replaced, and the newer its state. */
  displacedAfter = 0;
  welcomedAfter = 0;
  /** Whether an older one that is not closed yet is answered that its session is over; otherwise it hears nothing. */
  refuseFormer = false;
  /** Answers instead of the server, for one request. */
  answerNext: { event: string; answer: Handled } | null = null;
  /** Pushes that vanish, whatever the weather. */
  swallow: { event: string; count: number } | null = null;
  /** Every request that reached the server. */
  readonly requests: { readonly at: number; readonly from: string; readonly event: string; readonly request: unknown }[] =
    [];
  readonly posts: unknown[] = [];
  /** Requests about files, as method and path. */
  readonly fetched: string[] = [];
  readonly attempts: { readonly at: number; readonly auth: Connect }[] = [];
  readonly guests = new Map<string, Guest>();
  readonly #connections = new Set<Connected>();
  readonly #devices = new Set<string>();
  #count = 0;

  constructor(seed = 1) {
    this.random = generator(seed);
  }

  /** A browser that has answered the first visit's questions, already in the lobby. */
  async guest(): Promise<Browser> {
    const browser = new Browser(this);
    const device = `device-${(this.#count += 1)}`;
    this.#devices.add(device);
    browser.local.items.set("visavis.device", JSON.stringify(device));
    browser.open();
    await this.clock.run(1_000);
    return browser;
  }

  /** Two guests in a conversation with each other. */
  async pair(): Promise<[Browser, Browser]> {
    const [one, other] = [await this.guest(), await this.guest()];
    void one.app.find();
    void other.app.find();
    await this.clock.run(1_000);
    return [one, other];
  }

  requested<E extends keyof ClientToServerEvents>(event: E, from?: Browser): RequestOf<E>[] {
    return this.requests
      .filter((one) => one.event === event && (from === undefined || one.from === from.token))
      .map((one) => one.request as RequestOf<E>);
  }

  guestOf(browser: Browser): Guest {
    const guest = this.guests.get(browser.token);
    if (guest === undefined) throw new Error("no such guest");
    return guest;
  }

  /** When requests of a kind reached the server. */
  sentAt(event: keyof ClientToServerEvents, from: Browser): number[] {
    return this.requests.filter((one) => one.event === event && one.from === from.token).map((one) => one.at);
  }

  // ------------------------------------------------------------------ HTTP

  fetch(path: string, body: unknown): { status: number; json: unknown } {
    if (this.down) throw new Error("nobody is home");
    if (path === "/api/info") {
      return {
        status: 200,
        json: {
          lobby: this.lobby(),
          minimumAge: this.minimumAge,
          rules: this.rules,
          modes: this.modes,
          relay: this.relays > 0,
          recording: false,
          files: this.files.limits,
          contract: this.#contract(),
        },
      };
    }
    this.posts.push(body);
    const asked = body as { birthDate: string | null; rules: number | null; device: string | null };
    const known = asked.device !== null && this.#devices.has(asked.device);
    const refuse = (code: string, data: object = {}) => ({ status: 403, json: { error: { code, ...data } } });
    if (asked.device !== null && !known) return refuse("token_invalid");
    if (asked.birthDate !== null && new Date(this.clock.now).getFullYear() - Number(asked.birthDate.slice(0, 4)) < 18) {
      return refuse("under_age", { minimumAge: this.minimumAge });
    }
    if (asked.birthDate === null && !known) return refuse("birth_date_needed", { minimumAge: this.minimumAge });
    if ((asked.rules ?? (known ? 1 : 0)) < this.rules) return refuse("rules_not_accepted", { rules: this.rules });
    const number = (this.#count += 1);
    const guest: Guest = {
      token: `token-${number}`,
      profile: { name: `Guest ${number}`, hue: (number * 15) % 360 },
      connection: null,
      talk: null,
      searching: false,
      mode: "text",
    };
    this.guests.set(guest.token, guest);
    const device = asked.device ?? `device-${number}`;
    this.#devices.add(device);
    return {
      status: 200,
      json: { token: guest.token, expiresAt: this.clock.now + 7_200_000, device, profile: guest.profile },
    };
  }

  /** Whether answers that are on their way get lost. */
  lost(): boolean {
    return this.down;
  }

  /** What belongs to a guest: files and recordings. */
  async fetchOwn(path: string, token: string, method: string, body: unknown): Promise<{ status: number; json: unknown }> {
    if (this.down) throw new Error("nobody is home");
    if (!this.guests.has(token)) return { status: 401, json: { error: { code: "token_invalid" } } };
    if (path.startsWith("/api/files")) {
      this.fetched.push(`${method} ${path}`);
      const [, , , file] = path.split("/");
      if (file === undefined) return this.files.begin(token, body as BeginUpload);
      if (method === "DELETE") return this.files.remove(token, file);
      const state = await this.files.state(token, file);
      if (this.lost()) throw new Error("nobody is home");
      return state;
    }
    const id = path.split("/")[3];
    const { now } = this.clock;
    const list = Object.entries(this.recordings).map(([one, bytes]) => ({ id: one, madeAt: now, expiresAt: now, bytes, seconds: 1 }));
    if (id === undefined) return { status: 200, json: { recordings: list } };
    if (!(id in this.recordings)) return { status: 404, json: { error: { code: "not_found" } } };
    if (method === "DELETE") this.recordings = Object.fromEntries(Object.entries(this.recordings).filter(([one]) => one !== id));
    return { status: 200, json: {} };
  }

  bytes(path: string, token: string, progress: (bytes: number) => void): Blob | null {
    if (this.down) throw new Error("nobody is home");
    const bytes = this.recordings[path.split("/")[3] ?? ""];
    if (bytes === undefined || !this.guests.has(token)) return null;
    progress(bytes / 2);
    return new Blob(["x".repeat(bytes)]);
  }

  #contract(): string {
    const worker = this.contracts.length > 1 ? Math.floor(this.random() * this.contracts.length) : 0;
    return this.contracts[worker] ?? CONTRACT;
  }

  lobby(): LobbyState {
    const online = [...this.guests.values()].filter((guest) => guest.connection !== null).length;
    return { online: this.online ?? online, waiting: 0, popular: [] };
  }

  // ------------------------------------------------------------------ connections

  connect(connection: Connected, auth: Connect): void {
    this.attempts.push({ at: this.clock.now, auth });
    this.clock.after(this.#delay(), () => {
      if (!connection.open || !connection.page.alive) return;
      const refuse = (data?: unknown) => {
        connection.open = false;
        connection.events.refused(data);
      };
      if (this.down || !connection.page.browser.online) { refuse(); return; }
      const refusal = this.refusals.shift();
      if (refusal !== undefined) { refuse(refusal); return; }
      if (auth.contract !== this.#contract()) { refuse({ code: "stale_client" }); return; }
      const guest = this.guests.get(auth.token);
      if (guest === undefined) { refuse({ code: "session_expired" }); return; }
      this.#connections.add(connection);
      const former = guest.connection;
      guest.connection = connection;
      guest.searching = false;
      this.clock.after(this.displacedAfter, () => {
        if (former === null) return;
        if (former.open) former.events.pushed("session:replaced", {});
        this.#hangUp(former);
      });
      this.clock.after(this.welcomedAfter, () => {
        if (!connection.open) return;
        connection.events.connected();
        connection.events.pushed("session:state", {
          profile: guest.profile,
          conversation: guest.talk === null ? null : this.#describe(guest.talk, guest),
          lobby: this.lobby(),
        });
        for (const deliver of connection.early?.splice(0) ?? []) deliver();
        connection.early = null;
      });
      this.#tellPartner(guest, "here");
    });
  }

  /** A connection breaks, noticed by both ends. */
  cut(browser: Browser): void {
    const guest = this.guests.get(browser.token);
    const connection = guest?.connection;
    if (guest === undefined || connection == null) return;
    this.lose(connection);
    this.#hangUp(connection);
  }

  /** A connection stays open and carries nothing any more. */
  mute(browser: Browser): void {
    const connection = this.guests.get(browser.token)?.connection;
    if (connection) connection.mute = true;
  }

  /** How many lines of a browser are open. */
  open(browser: Browser): number {
    return [...this.#connections].filter(({ open, page }) => open && page.browser === browser).length;
  }

  /** Every connection breaks, also of guests whom the server does not know any more. */
  dropAll(): void {
    for (const connection of [...this.#connections]) {
      this.lose(connection);
      this.#hangUp(connection);
    }
  }

  /** The server notices that a connection is gone. */
  lose(connection: Connected): void {
    this.#connections.delete(connection);
    for (const guest of this.guests.values()) {
      if (guest.connection !== connection) continue;
      guest.connection = null;
      guest.searching = false;
      this.#tellPartner(guest, "away");
    }
  }

  #hangUp(connection: Connected): void {
    if (!connection.open) return;
    connection.open = false;
    if (connection.page.alive) connection.events.disconnected();
  }

  #tellPartner(guest: Guest, state: "here" | "away"): void {
    if (guest.talk === null) return;
    const seat = guest.talk.guests.indexOf(guest);
    const partner = guest.talk.guests[seat === 0 ? 1 : 0];
    this.push(partner, "conversation:partner", { conversationId: guest.talk.id, seat, state });
  }

  #describe(talk: Talk, guest: Guest): Conversation {
    const seat = talk.guests.indexOf(guest);
    const partner = talk.guests[seat === 0 ? 1 : 0];
    return {
      id: talk.id,
      mode: talk.mode,
      seat,
      partner: {
        seat: seat === 0 ? 1 : 0,
        profile: partner.profile,
        state: partner.connection === null ? "away" : "here",
      },
      why: { interests: ["jazz"], languages: ["en"] },
      startedAt: talk.startedAt,
      claim: `claim-${talk.id}`,
      call: talk.calls.view(seat === 0 ? 0 : 1),
    };
  }

  // ------------------------------------------------------------------ packets

  #delay(): number {
    const { fastest, slowest } = this.weather;
    return fastest + this.random() * (slowest - fastest);
  }

  #vanishes(event: string): boolean {
    return event.startsWith("chat:") && this.random() < this.weather.lost;
  }

  push<E extends keyof ServerToClientEvents>(guest: Guest, event: E, push: PushOf<E>): void {
    const connection = guest.connection;
    if (connection === null || connection.mute || this.#vanishes(event)) return;
    if (this.swallow?.event === event && this.swallow.count > 0) {
      this.swallow.count -= 1;
      return;
    }
    const copies = event.startsWith("chat:") && this.random() < this.weather.repeated ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      // News of seats keeps its order on one connection; what is said may overtake.
      const delay = event.startsWith("chat:") ? this.#delay() : this.weather.fastest;
      const deliver = () => {
        if (connection.open && connection.page.alive && connection.page.browser.online) connection.events.pushed(event, push);
      };
      this.clock.after(delay, () => {
        if (connection.early === null) deliver();
        else connection.early.push(deliver);
      });
    }
  }

  emit(connection: Connected, event: string, request: unknown, ack: (answer: unknown) => void): void {
    if (connection.mute || this.#vanishes(event)) return;
    this.clock.after(this.#delay(), () => {
      const guest = [...this.guests.values()].find((one) => one.connection === connection);
      if (guest === undefined && connection.open && this.refuseFormer && !this.down) {
        this.clock.after(this.#delay(), () => {
          if (connection.open) ack(event === "match:cancel" ? { ok: {} } : { error: { code: "session_expired" } });
        });
      }
      if (guest === undefined || this.down) return;
      this.requests.push({ at: this.clock.now, from: guest.token, event, request });
      const scripted = this.answerNext?.event === event ? this.answerNext.answer : null;
      if (scripted !== null) this.answerNext = null;
      const answer = scripted ?? this.#handle(guest, event, request);
      if (this.#vanishes(event)) return;
      this.clock.after(this.#delay(), () => {
        if (connection.open && connection.page.alive && connection.page.browser.online) ack(answer);
      });
    });
  }

  #handle(guest: Guest, event: string, request: unknown): Handled {
    const { talk } = guest;
    const done: Handled = { ok: {} };
    switch (event) {
      case "match:find": {
        if (talk !== null) return { error: { code: "in_conversation" } };
        const { interests, mode } = request as RequestOf<"match:find">;
        guest.searching = true;
        guest.mode = mode;
        this.clock.after(1, () => this.#match());
        const widening = { afterMs: 5_000, accepts: "anyone" };
        const steps = [{ afterMs: 0, accepts: interests?.length ? "interests" : "language" }, widening];
        return { ok: { since: this.clock.now, steps } };
      }
      case "match:cancel":
        guest.searching = false;
        return done;
      case "session:refresh":
        return { ok: { token: guest.token, expiresAt: this.clock.now + 7_200_000 } };
      case "safety:report":
        return { ok: { reportId: "r", files: 0 } };
      case "file:open": {
        // Also after it ended, until one leaves it.
        const { conversationId, fileId } = request as RequestOf<"file:open">;
        return this.files.open(conversationId, fileId);
      }
    }
    const { conversationId } = request as { readonly conversationId: string };
    if (talk?.id !== conversationId) {
      return event === "conversation:leave" || event === "safety:block"
        ? done
        : { error: { code: "not_in_conversation" } };
    }
    const seat = talk.guests.indexOf(guest);
    const partner = talk.guests[seat === 0 ? 1 : 0];
    switch (event) {
      case "conversation:leave":
      case "safety:block":
        this.end(guest, "left");
        return done;
      case "chat:message": {
        if (this.random() < this.weather.refused) {
          return { error: { code: "rate_limited", retryInMs: 300 + this.random() * 700 } };
        }
        const at = this.clock.now;
        const { body, ...said } = request as RequestOf<"chat:message">;
        if (body.kind !== "file") this.push(partner, "chat:message", { ...said, body, seat, at });
        else {
          const file = this.files.bySeal(body.seal);
          if (file === null) return { error: { code: "no_such_file" } };
          const { text = "", replyTo = null } = body;
          this.push(partner, "chat:message", { ...said, body: { kind: "file", file, text, replyTo }, seat, at });
        }
        return { ok: { at } };
      }
      case "chat:receipt":
        this.push(partner, "chat:receipt", { ...(request as RequestOf<"chat:receipt">), seat });
        return done;
      case "chat:typing":
        this.push(partner, "chat:typing", { ...(request as RequestOf<"chat:typing">), seat });
        return done;
      case "call:signal": {
        const early = talk.calls.mayOffer(seat === 0 ? 0 : 1);
        if (!talk.calls.open && early === null) return { error: { code: "not_agreed" } };
        const { signal } = request as RequestOf<"call:signal">;
        const rung = early ?? talk.calls.rung;
        const video = rung === "blurred" || rung === "clear";
        if (signal.kind === "description" && !video && /m=video[^m]*a=(sendrecv|sendonly)/.test(signal.sdp)) {
          return { error: { code: "not_agreed" } };
        }
        if (signal.kind === "candidate" && !talk.calls.direct && !signal.candidate.endsWith("typ relay")) return done;
        this.push(partner, "call:signal", { to: null, ...(request as RequestOf<"call:signal">) });
        return done;
      }
      case "call:servers":
        return { ok: this.ice() };
      case "recording:offer":
        return this.recorderFound ? done : { error: { code: "unavailable", retryInMs: 500 } };
      case "call:experience":
        return done;
      case "call:invite":
      case "call:accept":
      case "call:end":
      case "call:set": {
        const mine = seat === 0 ? 0 : 1;
        const code = talk.calls.do(event, mine, request as CallRequest[typeof event]);
        if (code !== null) return { error: { code } };
        this.tellCall(talk.guests[mine === 0 ? 1 : 0]);
        return { ok: talk.calls.view(mine) };
      }
    }
    return { error: { code: "unknown_event" } };
  }

  ice() {
    const servers = Array.from({ length: this.relays }, () => ({ urls: ["turn:relay"], username: "u", credential: "c" }));
    return { servers, expiresInMs: this.relays > 0 ? 600_000 : 0 };
  }

  /** Pushes how the call stands. */
  tellCall(guest: Guest): void {
    const { talk } = guest;
    if (talk !== null) this.push(guest, "call:state", talk.calls.view(talk.guests[0] === guest ? 0 : 1));
  }

  /** The server changes a call by itself, and tells both. */
  changeCall(browser: Browser, change: (calls: FakeCalls) => void): void {
    const { talk } = this.guestOf(browser);
    if (talk === null) return;
    change(talk.calls);
    talk.calls.version += 1;
    for (const guest of talk.guests) this.tellCall(guest);
  }

  async pairIn(mode: Conversation["mode"]): Promise<[Browser, Browser]> {
    this.modes = ["text", "voice", "video"];
    const [one, other] = [await this.guest(), await this.guest()];
    for (const { app } of [one, other]) {
      app.setMode(mode);
      void app.find();
    }
    await this.clock.run(2_000);
    return [one, other];
  }

  #match(): void {
    const [one, other] = [...this.guests.values()].filter((guest) => guest.searching);
    if (one === undefined || other === undefined) return;
    const id = `conversation-${(this.#count += 1)}`.padEnd(22, "-");
    const { mode } = one;
    const calls = new FakeCalls(id, mode, this.ice());
    const talk: Talk = { id, mode, calls, guests: [one, other], startedAt: this.clock.now };
    for (const guest of talk.guests) {
      guest.searching = false;
      guest.talk = talk;
    }
    for (const guest of talk.guests) this.push(guest, "match:found", { conversation: this.#describe(talk, guest) });
  }

  /** Ends the conversation of a guest; the partner is told if there. */
  end(guest: Guest, reason: "left" | "lost"): void {
    const { talk } = guest;
    if (talk === null) return;
    for (const one of talk.guests) {
      one.talk = null;
      if (one !== guest) this.push(one, "conversation:ended", { conversationId: talk.id, reason });
    }
  }
}

/** One load of the page. */
interface Page {
  readonly browser: Browser;
  alive: boolean;
}

class FakeStorage implements Storage {
  readonly items = new Map<string, string>();
  /** Characters that fit; 0 is a browser that forbids storage. */
  room = Infinity;

  getItem(key: string): string | null {
    if (this.room === 0) throw new Error("storage is forbidden");
    return this.items.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    if (value.length > this.room) throw new Error("quota exceeded");
    this.items.set(key, value);
  }
  removeItem(key: string): void {
    this.items.delete(key);
  }
}

/** A tab of a browser. `local` may be shared with another one. */
export class Browser {
  readonly network: Network;
  readonly session = new FakeStorage();
  readonly local: FakeStorage;
  languages: readonly string[] = ["en-GB", "en", "pt-BR"];
  online = true;
  reloads = 0;
  /** How wrong the clock of this device is. */
  clockAhead = 0;
  /** Ids of tabs that live elsewhere. */
  readonly taken = new Set<string>();
  readonly moments: Moment[] = [];
  #app: (Visavis & Moments) | null = null;
  #page: Page | null = null;
  #networkListeners: (() => void)[] = [];
  #visibleListeners: (() => void)[] = [];
  #hiddenListeners: (() => void)[] = [];
  #pathListeners: (() => void)[] = [];
  #goneListeners: (() => void)[] = [];
  readonly devices = new FakeDevices();
  /** Whether what is not part of the first load can be had. */
  parts = true;
  /** Files that were deleted on this device since they were chosen. */
  readonly unreadable = new Set<Blob>();
  /** Addresses of bytes that the page can show. */
  readonly urls = new Map<string, Blob>();
  /** How often the browser would ask before the page goes. */
  asksBeforeGoing = 0;
  readonly saved: { readonly name: string; readonly bytes: number }[] = [];
  readonly #connections = new Set<Connected>();

  constructor(network: Network, local = new FakeStorage()) {
    this.network = network;
    this.local = local;
  }

  get app(): Visavis & Moments {
    if (this.#app === null) throw new Error("the page is not open");
    return this.#app;
  }

  get token(): string {
    const guest = JSON.parse(this.session.items.get("visavis.guest.1") ?? "{}") as { token?: string };
    return guest.token ?? "";
  }

  get talk() {
    const talk = this.app.conversation.get();
    if (talk === null) throw new Error("there is no conversation");
    return talk;
  }

  /** What this side sees, oldest first. */
  get texts(): (string | null)[] {
    return this.talk.messages.map((message) => message.text);
  }

  /** How far what this side said has come, oldest first. */
  get deliveries(): (string | null)[] {
    return this.talk.messages.filter((message) => message.mine).map((message) => message.delivery);
  }

  open(): void {
    const page: Page = { browser: this, alive: true };
    this.#page = page;
    this.#networkListeners = [];
    this.#visibleListeners = [];
    this.#hiddenListeners = [];
    this.#pathListeners = [];
    this.#goneListeners = [];
    this.devices.listeners.length = 0;
    const reachable = () => page.alive && this.online && !this.network.down;
    this.#app = createVisavis(this.#env(page), {
      flow: () => Promise.resolve(flow),
      uploads: () =>
        this.parts
          ? Promise.resolve({
              createUploads: (...[env, connection, outside]: Parameters<typeof createUploads>) =>
                createUploads(env, connection, outside, (file, transfer) => this.network.files.carry(file, transfer, reachable)),
            })
          : Promise.reject(new Error("a part is missing")),
      voice: () => (this.parts ? Promise.resolve(voice) : Promise.reject(new Error("a part is missing"))),
    });
    this.#app.onMoment((moment) => this.moments.push(moment));
  }

  get call() {
    const call = this.app.call.get();
    if (call === null) throw new Error("there is no call");
    return call;
  }

  /** The way to the network becomes another one. */
  move(): void {
    for (const listener of this.#pathListeners) listener();
  }

  /** The page goes without a word, in the middle of whatever it did. */
  crash(): void {
    if (this.#page !== null) this.#page.alive = false;
    for (const peer of this.devices.peers) peer.close();
    for (const connection of this.#connections) {
      connection.open = false;
      this.network.lose(connection);
    }
    this.#connections.clear();
  }

  reload(): void {
    for (const listener of this.#goneListeners) listener();
    this.crash();
    this.open();
  }

  hide(): void {
    for (const listener of this.#hiddenListeners) listener();
  }

  show(): void {
    for (const listener of this.#visibleListeners) listener();
  }

  /** The device loses or regains its network. A connection that was open stays silent until somebody notices. */
  setOnline(online: boolean): void {
    this.online = online;
    for (const listener of this.#networkListeners) listener();
  }

  #env(page: Page): Env {
    const { network } = this;
    return {
      async fetch(path, body, request) {
        await new Promise<void>((resolve) => void network.clock.after(10, resolve));
        if (!page.browser.online) throw new Error("there is no network");
        if (request?.token === undefined) return network.fetch(path, body);
        const method = request.method ?? (body === undefined ? "GET" : "POST");
        return network.fetchOwn(path, request.token, method, JSON.parse(JSON.stringify(body ?? null)));
      },
      line: (events) => {
        let connection: Connected | null = null;
        return {
          connect: () => {
            connection = { page, events, open: true, mute: false, early: [] };
            this.#connections.add(connection);
            network.connect(connection, events.auth());
          },
          disconnect: () => {
            const former = connection;
            connection = null;
            if (former === null || !former.open) return;
            former.open = false;
            network.lose(former);
            events.disconnected();
          },
          emit: (event, request, ack) => {
            // What goes over the wire is a copy of that moment.
            if (connection?.open && this.online) {
              network.emit(connection, event, JSON.parse(JSON.stringify(request)), ack);
            }
          },
        };
      },
      async fetchBytes(path, token, progress) {
        await new Promise<void>((resolve) => void network.clock.after(10, resolve));
        return network.bytes(path, token, progress);
      },
      saveFile: (bytes, name) => void this.saved.push({ name, bytes: bytes.size }),
      canRead: (file) => Promise.resolve(!this.unreadable.has(file)),
      urlOf: (bytes) => {
        const url = `blob:${this.urls.size + 1}-${network.random()}`;
        this.urls.set(url, bytes);
        return url;
      },
      revokeUrl: (url) => void this.urls.delete(url),
      askBeforeGoing: () => {
        this.asksBeforeGoing += 1;
        return () => void (this.asksBeforeGoing -= 1);
      },
      media: this.devices.env(network.media, () => page.alive),
      sessionStorage: this.session,
      localStorage: this.local,
      now: () => network.clock.now + this.clockAhead,
      after: (ms, run) => network.clock.after(ms, () => page.alive && run()),
      random: network.random,
      randomBytes: (count) => Uint8Array.from({ length: count }, () => Math.floor(network.random() * 256)),
      languages: this.languages,
      online: () => this.online,
      onNetwork: (listener) => void this.#networkListeners.push(listener),
      onPath: (listener) => void this.#pathListeners.push(listener),
      onGone: (listener) => void this.#goneListeners.push(listener),
      onVisible: (listener) => void this.#visibleListeners.push(listener),
      onHidden: (listener) => void this.#hiddenListeners.push(listener),
      reload: () => void (this.reloads += 1),
      claimTab: (id) => Promise.resolve(!this.taken.has(id)),
    };
  }
}
