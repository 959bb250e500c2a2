/**
 * What flows during one call: the peer connection of the moment and its successors, their health, the recorder.
 * Loaded when a call may come, not with the page.
 *
 * Each peer connection has a name of its own, its session, so that signals of one that is gone are told from those of
 * its successor. Whatever gets lost on the way heals by being said again: an offer until it is answered, a hello until
 * somebody answers. Dead media is noticed by what arrives, long before ICE would notice.
 */
import { adapt, judge, read, sendingAt, UNADAPTED, type Quality, type Reading } from "./adapt";
import type { Call, CallExperience, IceServers, Signalled } from "./contract.gen";
import type { DeviceTracks } from "./devices";
import type { Cancel, Env } from "./env";
import type { CallView, Store } from "./model";
import { createPeer, showsVideo, type Asked, type Peer, type Signal, type Terms, type Tracks } from "./peer";
import { createRecorder } from "./recorder";
import { passes, type Connection } from "./socket";
import { store } from "./store";

export interface FlowView {
  readonly phase: "connecting" | "live" | "reconnecting";
  readonly liveSince: number | null;
  readonly quality: CallView["quality"];
  readonly numbers: CallView["numbers"];
  readonly sending: CallView["sending"];
  readonly speaking: { readonly mine: boolean; readonly theirs: boolean };
  readonly theirs: MediaStream | null;
  readonly screen: MediaStream | null;
}

/** How the call stands, as far as media is concerned. */
export interface Standing {
  readonly open: boolean;
  /** This guest has invited, and it rings. */
  readonly early: boolean;
  readonly rung: Call["rung"];
  readonly direct: boolean;
  readonly ice: IceServers;
  readonly recordingId: string | null;
  /** The partner says that something of theirs is on: then something has to arrive. */
  readonly expecting: boolean;
}

export interface FlowSetup {
  readonly conversationId: string;
  readonly callId: string;
  readonly polite: boolean;
  /** The call was found going on, as after a reload: the partner's peer connection may be older than this page. */
  readonly resumed: boolean;
  /** Since when media flowed before that. */
  readonly liveSince: number | null;
  readonly level: Store<number>;
  newId(): string;
  joined(): void;
  /** No connection came about, or came back, in time. */
  failed(): void;
  /** The server does not know this call. */
  doubt(): void;
  broken(): void;
}

export interface Flow {
  readonly view: Store<FlowView>;
  update(standing: Standing): void;
  carry(devices: DeviceTracks, screen: MediaStream | null): void;
  receive(push: Signalled): void;
  recorderAnswered(session: string, sdp: string): void;
  /** The socket, or the partner, is back: what was said meanwhile may be lost. */
  back(): void;
  /** The way to the network is another one. */
  moved(): void;
  close(): void;
}

const PULSE_MS = 250;
const POLL_MS = 1_000;
const WORRIED_POLL_MS = 400;
const WORRIED_MS = 600;
/** By how much usually arrives in a second: how long nothing at all means that the path is dead. */
const SILENCES: readonly (readonly [pace: number, ms: number])[] = [
  [6, 1_200],
  [1.5, 2_800],
];
const BELIEVED_MS = 3_000;
const GIVE_UP_MS = 30_000;
const FIRST_RESTART_MS = 7_000;
const RESTARTS_MS = [2_500, 3_500, 4_500, 6_000];
/** The impolite side mends first; two at once would only collide. */
const YIELD_MS = 500;
const HELLO_MS = 2_000;
/** A partner whose sessions follow one another faster than this makes no work with each of them. */
const SUCCESSOR_MS = 1_000;
const SIGNAL_TIMEOUT_MS = 3_000;
const WORRIED_TIMEOUT_MS = 1_500;
/** Credentials are renewed at this share of their life, and not exchanged for newer ones before half of it. */
const RENEW_AT = 0.7;
const SPEAKING_HOLD_MS = 500;
const SPEAKING_MINE = 0.08;
const SPEAKING_THEIRS = 0.015;
/** How long the first frame may take before the connection is counted without one. */
const FIRST_FRAME_MS = 5_000;

export function createFlow(env: Env, connection: Connection, setup: FlowSetup, initial: Standing): Flow {
  const { conversationId, callId, polite } = setup;
  const view = store<FlowView>({
    phase: setup.liveSince === null ? "connecting" : "reconnecting",
    liveSince: setup.liveSince,
    quality: null,
    numbers: null,
    sending: "full",
    speaking: { mine: false, theirs: false },
    theirs: null,
    screen: null,
  });
  const recorder = createRecorder(env, setup.newId, async (recordingId, session, sdp) => {
    const outcome = await connection.ask("recording:offer", { conversationId, recordingId, session, sdp });
    if ("ok" in outcome) return true;
    const { retryInMs } = outcome.error;
    return passes(outcome.error) && retryInMs !== null ? retryInMs : false;
  });

  let standing = initial;
  let ice = initial.ice;
  let iceSince = env.now();
  let renewTimer: Cancel | null = null;
  let tracks: Tracks = { microphone: null, camera: null, screen: null, screenSound: null };
  let closed = false;

  let peer: Peer | null = null;
  let session = "";
  let state: RTCPeerConnectionState = "new";
  let partner: string | null = null;
  /** Sessions of the partner that have a successor. */
  const gone = new Set<string>();
  /** What came before the call was open here, and which offer of this side's waited then. */
  const waiting: { readonly push: Signalled; readonly asked: Asked | null }[] = [];
  /** What the newest session of the partner's says before its turn has come. */
  let successor: Signalled[] = [];
  let successorTimer: Cancel | null = null;
  let succeededAt = -Infinity;
  let unsaid = false;
  let repeatTimer: Cancel | null = null;

  let openSince: number | null = null;
  let pulseTimer: Cancel | null = null;
  let polling = false;
  let polledAt = 0;
  let judgedAt = 0;
  let reading: Reading | null = null;
  let quality: Quality | null = null;
  let adaptation = UNADAPTED;
  let newestPacket = 0;
  let signAt = 0;
  /** What arrives in a second while all is well. */
  let pace = 0;
  let troubleSince: number | null = null;
  let restarts = 0;
  let restartAt = 0;
  let helloAt = 0;
  let firstFrameAt: number | null = null;
  let counted = setup.liveSince !== null;
  const spoke = { mine: 0, theirs: 0 };

  function show(change: Partial<FlowView>): void {
    view.set({ ...view.get(), ...change });
  }

  function terms(): Terms {
    const { open, early, rung, direct } = standing;
    return { open, early, rung, direct, servers: ice.servers };
  }

  // ------------------------------------------------------------------ peer connections

  function renew(): void {
    peer?.close();
    session = setup.newId();
    state = "new";
    reading = null;
    newestPacket = 0;
    pace = 0;
    const made = createPeer(env, polite, terms(), {
      send: (signal) => say(signal, partner),
      changed: () => peer === made && changed(),
      arrived: () => {
        if (peer !== made) return;
        firstFrameAt ??= env.now();
        sign();
        countConnected();
      },
      outdated() {
        if (peer !== made) return;
        renew();
        hello();
      },
      broken: () => peer === made && setup.broken(),
    });
    peer = made;
    peer.limit(adaptation.level);
    peer.carry(tracks);
    restartAt = env.now() + FIRST_RESTART_MS + (polite ? 2_000 : 0);
    helloAt = env.now() + (setup.resumed || view.get().liveSince !== null ? 0 : HELLO_MS);
  }

  function changed(): void {
    if (peer === null) return;
    showStreams(peer);
    const { connectionState } = peer.connection;
    // What was connected before may be dead by now, and not know it.
    if (connectionState === state) return;
    state = connectionState;
    if (connectionState === "connected") {
      sign();
      void poll();
      if (view.get().liveSince === null) {
        show({ phase: "live", liveSince: env.now() });
        setup.joined();
      }
      settle();
    } else if (connectionState === "failed") trouble(0);
    else if (connectionState === "disconnected") {
      void poll();
      if (env.now() - signAt > WORRIED_MS) trouble(polite ? YIELD_MS : 0);
    }
  }

  function showStreams(current: Peer): void {
    if (!current.met()) return;
    const { tracks: all, screen } = current.received();
    const theirs = showsVideo(standing.rung) ? all : all.filter(({ kind }) => kind === "audio");
    show({
      theirs: same(view.get().theirs, theirs),
      screen: same(view.get().screen, showsVideo(standing.rung) ? screen : []),
    });
  }

  /** The stream there is, if it has the very same tracks: a player that is handed another one starts anew. */
  function same(stream: MediaStream | null, wanted: readonly MediaStreamTrack[]): MediaStream | null {
    if (wanted.length === 0) return null;
    const now = stream?.getTracks() ?? [];
    const equal = now.length === wanted.length && wanted.every((track) => now.includes(track));
    return equal ? stream : env.media.stream(wanted);
  }

  // ------------------------------------------------------------------ signals

  function say(signal: Signal, to: string | null): void {
    const from = session;
    const timeout = troubleSince === null ? SIGNAL_TIMEOUT_MS : WORRIED_TIMEOUT_MS;
    void connection.ask("call:signal", { conversationId, callId, session, to, signal }, timeout).then((outcome) => {
      if ("ok" in outcome || closed || from !== session) return;
      const { code, retryInMs } = outcome.error;
      if (passes(outcome.error)) {
        unsaid = true;
        // While the link is away, its return says when.
        if (connection.link.get() === "online") repeatAfter(retryInMs ?? 500);
      } else if (code === "no_such_call" || code === "not_in_conversation") setup.doubt();
      else if (signal.kind === "description") peer?.refused(signal);
    });
  }

  function repeatAfter(ms: number): void {
    repeatTimer ??= env.after(ms, () => {
      repeatTimer = null;
      back();
    });
  }

  function hello(): void {
    helloAt = env.now() + HELLO_MS;
    say({ kind: "hello" }, null);
  }

  /** Whether a signal of this session is to be listened to. */
  function meet(from: string): boolean {
    if (from === partner) return true;
    if (gone.has(from)) return false;
    if (partner !== null) gone.add(partner);
    partner = from;
    // A peer connection that has met another one cannot start over with its successor.
    if (peer?.met() === true) {
      succeededAt = env.now();
      startOver();
    }
    return true;
  }

  /** Whether a signal is of a session that follows too soon: then it waits, and what waited of another is forgotten. */
  function isHasty(push: Signalled): boolean {
    const waitMs = succeededAt + SUCCESSOR_MS - env.now();
    if (waitMs <= 0 || push.session === partner || gone.has(push.session) || peer?.met() !== true) return false;
    const former = successor[0]?.session ?? push.session;
    if (former !== push.session) {
      gone.add(former);
      successor = [];
    }
    if (successor.length < 64) successor.push(push);
    successorTimer ??= env.after(waitMs, () => {
      successorTimer = null;
      for (const one of successor.splice(0)) receive(one);
    });
    return true;
  }

  function startOver(): void {
    if (view.get().liveSince !== null) troubleSince ??= env.now();
    renew();
    showTrouble();
  }

  /** While it rings, who is asked takes the caller's offer in; nothing of the partner's reaches who calls. */
  function hasToWait({ kind, ...signal }: Signal): boolean {
    if (standing.open) return false;
    return standing.early || kind === "hello" || ("type" in signal && signal.type === "answer");
  }

  function receive(push: Signalled, asked = peer?.asked() ?? null): void {
    if (push.callId !== callId || (push.to !== null && push.to !== session)) return;
    if (peer === null || hasToWait(push.signal)) {
      // The partner heard first that the call is open.
      if (waiting.length < 64) waiting.push({ push, asked });
      return;
    }
    if (isHasty(push) || !meet(push.session)) return;
    const { signal } = push;
    if (signal.kind !== "hello") {
      // The partner is mending already.
      if (signal.kind === "description") restartAt = Math.max(restartAt, env.now() + (RESTARTS_MS[0] ?? 0));
      peer.receive(signal, asked);
    } else if (push.to === null && !peer.repeat()) say({ kind: "hello" }, push.session);
  }

  function back(): void {
    if (peer === null || !standing.open || connection.link.get() !== "online") return;
    const well = peer.connection.connectionState === "connected" && troubleSince === null;
    if (!well || unsaid) {
      unsaid = false;
      if (!peer.repeat() && !well) hello();
    }
    if (troubleSince !== null) restartAt = Math.min(restartAt, env.now() + YIELD_MS + (polite ? YIELD_MS : 0));
  }

  // ------------------------------------------------------------------ health

  function sign(): void {
    signAt = env.now();
  }

  function trouble(delayMs: number): void {
    const { phase } = view.get();
    if (phase === "connecting") {
      restartAt = Math.min(restartAt, env.now() + delayMs + (polite ? YIELD_MS : 0));
      return;
    }
    if (troubleSince !== null) return;
    troubleSince = env.now();
    restarts = 0;
    restartAt = env.now() + delayMs;
    showTrouble();
    mend();
  }

  function showTrouble(): void {
    if (view.get().phase === "live" && troubleSince !== null) show({ phase: "reconnecting" });
  }

  /** Something arrives again over a path that holds. */
  function settle(): void {
    if (peer?.connection.connectionState !== "connected") return;
    if (view.get().phase === "reconnecting") {
      if (restarts > 0) tell({ what: "restarted", path: reading?.numbers.path ?? "unknown" });
      show({ phase: "live", liveSince: view.get().liveSince ?? env.now() });
    }
    troubleSince = null;
    restarts = 0;
  }

  /** Looks for a new path when it is time to. */
  function mend(): void {
    if (peer === null || env.now() < restartAt) return;
    restartAt = env.now() + (RESTARTS_MS[Math.min(restarts, RESTARTS_MS.length - 1)] ?? 0) + env.random() * 500;
    restarts += 1;
    // Perhaps it is the relay that has gone, and there is another.
    if (restarts === 2) void renewServers();
    if (peer.met()) peer.restart();
    else if (!peer.repeat()) hello();
  }

  function pulse(): void {
    pulseTimer = env.after(PULSE_MS, pulse);
    if (peer === null || !standing.open) return;
    listen(peer);
    const now = env.now();
    if (troubleSince !== null) {
      // From who sends nothing there is little to hear: then ICE has to be believed.
      const believed = !standing.expecting && now - troubleSince > BELIEVED_MS && peer.connection.signalingState === "stable";
      if (signAt > troubleSince || believed) settle();
    }
    const quiet = now - signAt;
    const { phase } = view.get();
    const worried = troubleSince !== null || quiet > WORRIED_MS;
    if (peer.met() && now - polledAt >= (worried ? WORRIED_POLL_MS : POLL_MS)) void poll();
    if (phase === "live") {
      const limit = standing.expecting ? (SILENCES.find(([least]) => pace >= least)?.[1] ?? Infinity) : Infinity;
      if (quiet > limit && polledAt > signAt) trouble(polite ? YIELD_MS : 0);
    } else {
      if (!peer.met() && polite && now >= helloAt) hello();
      mend();
    }
    if (phase === "connecting" || troubleSince !== null) {
      const since = troubleSince ?? openSince ?? now;
      if (now - since > GIVE_UP_MS) {
        tell({ what: "failed", cause: causeOf(peer) });
        setup.failed();
        return;
      }
    }
    if (view.get().liveSince !== null && !counted && openSince !== null && now - openSince > FIRST_FRAME_MS) countConnected();
  }

  function causeOf(current: Peer): CallExperience["cause"] {
    if (view.get().liveSince !== null) return "lost";
    if (!/^a=candidate:/m.test(current.connection.localDescription?.sdp ?? "")) return "no_candidates";
    return current.met() ? "no_path" : "other";
  }

  /** What the browser knows without counting: who speaks, and whether anything came lately. */
  function listen(current: Peer): void {
    let newest = 0;
    let loudest = 0;
    for (const receiver of current.connection.getReceivers()) {
      if (!("getSynchronizationSources" in receiver)) continue;
      for (const source of receiver.getSynchronizationSources()) {
        newest = Math.max(newest, source.timestamp);
        if (receiver.track.kind === "audio") loudest = Math.max(loudest, source.audioLevel ?? 0);
      }
    }
    if (newest > newestPacket) {
      newestPacket = newest;
      sign();
    }
    const now = env.now();
    if (loudest > SPEAKING_THEIRS && now - signAt < PULSE_MS) spoke.theirs = now;
    if (setup.level.get() > SPEAKING_MINE) spoke.mine = now;
    const speaking = { mine: now - spoke.mine < SPEAKING_HOLD_MS, theirs: now - spoke.theirs < SPEAKING_HOLD_MS };
    const before = view.get().speaking;
    if (speaking.mine !== before.mine || speaking.theirs !== before.theirs) show({ speaking });
  }

  async function poll(): Promise<void> {
    const current = peer;
    if (polling || current === null) return;
    polling = true;
    polledAt = env.now();
    try {
      const report = (await current.connection.getStats()) as ReadonlyMap<string, unknown>;
      if (current !== peer || closed) return;
      assess(read(report, polledAt, current.cameraMid(), reading));
    } catch {
      // A connection that was closed meanwhile has nothing to say.
    } finally {
      polling = false;
    }
  }

  function assess(next: Reading): void {
    const before = reading;
    reading = next;
    if (before !== null && next.alive > before.alive) sign();
    if (before === null || troubleSince !== null || view.get().phase !== "live") return;
    const seconds = (next.at - before.at) / 1000;
    if (seconds > 0) pace += ((next.alive - before.alive) / seconds - pace) * Math.min(1, seconds / 2);
    countConnected();
    if (next.at - judgedAt < POLL_MS - 100) return;
    judgedAt = next.at;
    quality = judge(quality, next.sample);
    adaptation = adapt(adaptation, next.sample);
    peer?.limit(adaptation.level);
    show({
      quality: quality.word,
      // What was sent before the rung went down is no news.
      numbers: showsVideo(standing.rung) ? next.numbers : { ...next.numbers, sendVideo: null, receiveVideo: null, videoCodec: null },
      // Without video there is nothing to be reduced.
      sending: showsVideo(standing.rung) ? sendingAt(adaptation.level) : "full",
    });
  }

  // ------------------------------------------------------------------ counting, without a name

  function countConnected(): void {
    if (counted || view.get().liveSince === null || openSince === null || reading?.numbers.path == null) return;
    if (firstFrameAt === null && env.now() - openSince <= FIRST_FRAME_MS) return;
    counted = true;
    const firstFrameMs = firstFrameAt === null ? null : Math.max(0, Math.round(firstFrameAt - openSince));
    tell({ what: "connected", path: reading.numbers.path, firstFrameMs });
  }

  function tell(experience: Omit<CallExperience, "conversationId" | "callId">): void {
    void connection.ask("call:experience", { conversationId, callId, ...experience });
  }

  // ------------------------------------------------------------------ relays

  function renewLater(): void {
    renewTimer?.();
    renewTimer = null;
    if (ice.servers.length === 0 || ice.expiresInMs <= 0) return;
    renewTimer = env.after(Math.max(5_000, iceSince + ice.expiresInMs * RENEW_AT - env.now()), () => void renewServers());
  }

  async function renewServers(): Promise<void> {
    const outcome = await connection.ask("call:servers", { conversationId, callId });
    if (closed) return;
    if ("ok" in outcome) takeServers(outcome.ok);
    else renewTimer = env.after(outcome.error.retryInMs ?? 5_000, () => void renewServers());
  }

  function takeServers(next: IceServers): void {
    ice = next;
    iceSince = env.now();
    renewLater();
    peer?.agree(terms());
  }

  function stopPeer(): void {
    peer?.close();
    peer = null;
    if (partner !== null) gone.add(partner);
    partner = null;
    successor = [];
    openSince = null;
    show({ phase: view.get().liveSince === null ? "connecting" : "reconnecting", theirs: null, screen: null });
  }

  // ------------------------------------------------------------------ what is agreed

  function update(next: Standing): void {
    const before = standing;
    standing = next;
    // Every state names servers; those in use are good, and what was gathered from them would be lost.
    // Unless they may be what is broken.
    const stale =
      troubleSince !== null ||
      env.now() - iceSince > ice.expiresInMs / 2 ||
      (ice.servers.length === 0) !== (next.ice.servers.length === 0);
    if (stale) {
      ice = next.ice;
      iceSince = env.now();
      renewLater();
    }
    if (before.open && !next.open) stopPeer();
    else if (before.direct && !next.direct && peer?.met() === true) {
      // A browser keeps to a direct path that works, whatever is gathered anew; only another connection leaves it.
      if (partner !== null) gone.add(partner);
      partner = null;
      startOver();
    }
    const possible = next.open || ice.servers.length > 0;
    if (possible && peer === null) renew();
    else peer?.agree(terms());
    if (next.open && openSince === null) {
      openSince = env.now();
      signAt = env.now();
      if (view.get().liveSince !== null) troubleSince = env.now();
      restartAt = env.now() + FIRST_RESTART_MS + (polite ? 2_000 : 0);
      helloAt = env.now() + (setup.resumed ? 0 : HELLO_MS);
      for (const { push, asked } of waiting.splice(0)) receive(push, asked);
    }
    if (peer !== null) showStreams(peer);
    recorder.update(next.open ? next.recordingId : null, terms(), tracks);
  }

  update(initial);
  renewLater();
  pulse();

  return {
    view,
    update,
    carry({ microphone, camera }, screen) {
      tracks = {
        microphone,
        camera,
        screen: screen?.getVideoTracks()[0] ?? null,
        screenSound: screen?.getAudioTracks()[0] ?? null,
      };
      peer?.carry(tracks);
      recorder.update(standing.open ? standing.recordingId : null, terms(), tracks);
    },
    receive: (push) => receive(push),
    recorderAnswered: (of, sdp) => recorder.answer(of, sdp),
    back,
    moved() {
      if (peer === null || view.get().liveSince === null) return;
      // Both ends of the old path may look fine for seconds.
      if (troubleSince === null) trouble(0);
      else restartAt = env.now();
    },
    close() {
      if (closed) return;
      closed = true;
      for (const timer of [pulseTimer, renewTimer, repeatTimer, successorTimer]) timer?.();
      recorder.close();
      stopPeer();
    },
  };
}
