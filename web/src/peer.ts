/**
 * One peer connection, from its first offer to its close: perfect negotiation (W3C webrtc-pc, 10.7) over a channel
 * that may lose things, with what was agreed in force before anything leaves.
 *
 * It has four parts in fixed order: sound, camera, shared screen, the screen's sound. Turning a camera or a screen on
 * and off needs no negotiation; another rung or another kind of path does. Only the impolite side makes the parts, so
 * there are never two sets of them. Everything happens one after another, in one queue.
 */
import { cameraEncoding, screenEncoding } from "./adapt";
import type { Call, Candidate, Description, Hello, IceServer } from "./contract.gen";
import type { Cancel, Env } from "./env";

export type Signal = Hello | Description | Candidate;

/** What is agreed, or, before the partner has answered, what is to be expected. */
export interface Terms {
  /** Media and signals may flow. */
  readonly open: boolean;
  /** While it rings: the caller's offer may be said already. The answer waits, and media waits for the answer. */
  readonly early: boolean;
  readonly rung: Call["rung"];
  readonly direct: boolean;
  readonly servers: readonly IceServer[];
}

export interface Tracks {
  readonly microphone: MediaStreamTrack | null;
  readonly camera: MediaStreamTrack | null;
  readonly screen: MediaStreamTrack | null;
  readonly screenSound: MediaStreamTrack | null;
}

export interface PeerEvents {
  /** Pass it on; a refusal comes back through `refused`. */
  send(signal: Description | Candidate): void;
  /** The connection's state, or one of the partner's tracks, is another. */
  changed(): void;
  /** The first packet of sound or video came. */
  arrived(): void;
  /** What was agreed is not what was prepared for: only another connection can begin with it. */
  outdated(): void;
  /** The browser would not do what negotiation needs. */
  broken(error: unknown): void;
}

/** One offer: an answer that came before it was made belongs to another. */
export interface Asked {
  readonly key: string;
}

export interface Peer {
  readonly connection: RTCPeerConnection;
  /** Whether anything of the partner's is known to it. */
  met(): boolean;
  /** What comes from the partner, in the order of the parts. */
  received(): { readonly tracks: readonly MediaStreamTrack[]; readonly screen: readonly MediaStreamTrack[] };
  /** The mid of the cameras' part; null before there is one. */
  cameraMid(): string | null;
  agree(terms: Terms): void;
  carry(tracks: Tracks): void;
  /** How much video the path carries, as in `adapt`. */
  limit(level: number): void;
  /** `asked`: the offer that waited when the signal came, if that was not now. */
  receive(signal: Description | Candidate, asked?: Asked | null): void;
  /** The offer that waits for an answer; null: none does. */
  asked(): Asked | null;
  /** Finds a new path. */
  restart(): void;
  /** The partner may have missed what was said: says again what still matters. Returns whether an offer was. */
  repeat(): boolean;
  /** The server did not pass a description on. */
  refused(signal: Description): void;
  close(): void;
}

const PARTS = ["microphone", "camera", "screen", "screenSound"] as const;
type Part = (typeof PARTS)[number];
const KIND: Readonly<Record<Part, "audio" | "video">> = {
  microphone: "audio",
  camera: "video",
  screen: "video",
  screenSound: "audio",
};
/** For a change that both sides learn of at once: the polite one lets the other begin. */
const YIELD_MS = 800;
/** An offer without an answer is said again, later each time. */
const UNANSWERED_MS = 3_000;
const LONGEST_UNANSWERED_MS = 12_000;
const REFUSED_MS = 2_000;

/** Whether video, and with it a shared screen, may be sent. A screen is chosen and shared by its own button, so it is never blurred. */
export function showsVideo(rung: Call["rung"]): boolean {
  return rung === "blurred" || rung === "clear";
}

export function configurationOf({ direct, servers }: Pick<Terms, "direct" | "servers">): RTCConfiguration {
  return {
    iceServers: servers.map(({ urls, username, credential }) => ({ urls: [...urls], username, credential })),
    iceTransportPolicy: direct ? "all" : "relay",
    bundlePolicy: "max-bundle",
    // Gathers before there is an offer: accepting must not wait for a relay.
    iceCandidatePoolSize: 1,
  };
}

export function createPeer(env: Env, polite: boolean, first: Terms, events: PeerEvents): Peer {
  let terms = first;
  let tracks: Tracks = { microphone: null, camera: null, screen: null, screenSound: null };
  let level = 0;
  let closed = false;
  let queue: Promise<void> = Promise.resolve();
  const connection = env.media.peer(configurationOf(first));
  let parts: RTCRtpTransceiver[] = [];
  const preferred = new WeakSet<RTCRtpTransceiver>();
  const heard = new WeakSet<MediaStreamTrack>();

  /** Under what terms the offer that waits for an answer was made; null: none waits. */
  let offer: { readonly key: string; readonly restart: boolean; sent: boolean } | null = null;
  /** Under what terms an answer was made that has to wait until the call is open; null: none waits. */
  let held: string | null = null;
  let wantsOffer = false;
  let wantsRestart = false;
  let offerTimer: Cancel | null = null;
  let unansweredTimer: Cancel | null = null;
  let unanswered = 0;
  let ignoring = false;
  let early: Candidate[] = [];
  /** Of the current generation, in order. */
  let candidates: Candidate[] = [];
  let said = 0;

  connection.addEventListener("icecandidate", ({ candidate }) => {
    if (candidate === null || candidate.candidate === "") return;
    candidates.push({
      kind: "candidate",
      candidate: candidate.candidate,
      mid: candidate.sdpMid,
      line: candidate.sdpMLineIndex,
      ufrag: candidate.usernameFragment,
    });
    sayCandidates();
  });
  connection.addEventListener("connectionstatechange", () => events.changed());
  connection.addEventListener("track", ({ track }) => {
    if (heard.has(track)) return;
    heard.add(track);
    track.addEventListener("unmute", () => {
      events.arrived();
      events.changed();
    });
    track.addEventListener("mute", () => events.changed());
  });

  function run(step: () => Promise<void> | void): void {
    queue = queue.then(async () => {
      if (closed) return;
      try {
        await step();
      } catch (error) {
        // The page may have closed it in the middle of a step.
        if (connection.signalingState !== "closed") events.broken(error);
      }
    });
  }

  // ------------------------------------------------------------------ the parts

  function key(): string {
    return `${showsVideo(terms.rung)} ${terms.rung === "text"} ${terms.direct}`;
  }

  function directionOf(part: Part): RTCRtpTransceiverDirection {
    const agreed = part === "microphone" ? terms.rung !== "text" : showsVideo(terms.rung);
    return agreed ? "sendrecv" : "inactive";
  }

  function encodingOf(part: Part): RTCRtpEncodingParameters {
    if (part === "camera") return cameraEncoding(terms.rung !== "clear", level, sideOf(tracks.camera));
    if (part === "screen") return screenEncoding(level);
    return { priority: "high", networkPriority: "high" };
  }

  function trackOf(part: Part): MediaStreamTrack | null {
    return directionOf(part) === "inactive" ? null : tracks[part];
  }

  /** Makes or finds the parts and brings each in line with what is agreed. */
  async function arrange(): Promise<void> {
    if (parts.length === 0) {
      if (connection.remoteDescription === null && connection.signalingState === "stable") {
        parts = PARTS.map((part) =>
          connection.addTransceiver(KIND[part], { direction: directionOf(part), sendEncodings: [encodingOf(part)] }),
        );
      } else parts = connection.getTransceivers().slice(0, PARTS.length);
    }
    for (const [index, part] of PARTS.entries()) {
      const transceiver = parts[index];
      if (transceiver === undefined) continue;
      const direction = directionOf(part);
      if (transceiver.direction !== direction && transceiver.direction !== "stopped") transceiver.direction = direction;
      prefer(env, transceiver, KIND[part]);
    }
    await dress();
  }

  function prefer(env: Env, transceiver: RTCRtpTransceiver, kind: "audio" | "video"): void {
    if (preferred.has(transceiver)) return;
    preferred.add(transceiver);
    preferCodecs(env, transceiver, kind);
  }

  /** Puts tracks and encodings into the parts: the encoding first, so that no frame leaves in a former one. */
  async function dress(): Promise<void> {
    for (const [index, part] of PARTS.entries()) {
      const sender = parts[index]?.sender;
      if (sender === undefined) continue;
      const track = trackOf(part);
      const coarser = part === "camera" && terms.rung !== "clear";
      // A picture that was clear a moment ago is held back until its blur is in force.
      if (sender.track !== null && sender.track !== track) await sender.replaceTrack(null);
      if (coarser && sender.track !== null && !isBlurred(sender)) await sender.replaceTrack(null);
      const set = await encode(sender, encodingOf(part));
      // Without its blur nothing of the camera leaves; the next negotiation tries again.
      if (track !== sender.track && (set || !coarser)) await sender.replaceTrack(track);
    }
  }

  // ------------------------------------------------------------------ offering

  function wantOffer(delayMs = 0): void {
    wantsOffer = true;
    if (delayMs === 0) {
      offerTimer?.();
      offerTimer = null;
      run(makeOffer);
    } else
      offerTimer ??= env.after(delayMs, () => {
        offerTimer = null;
        run(makeOffer);
      });
  }

  async function makeOffer(): Promise<void> {
    if (!wantsOffer || offerTimer !== null) return;
    // The polite side waits for the parts to be made for it.
    if (polite && connection.remoteDescription === null) return;
    if (polite && !terms.open) return;
    if (connection.signalingState !== "stable") return;
    wantsOffer = false;
    await arrange();
    const restart = wantsRestart;
    wantsRestart = false;
    const description = await connection.createOffer({ iceRestart: restart });
    newGeneration(restart);
    offer = { key: key(), restart, sent: false };
    await connection.setLocalDescription(description);
    flush();
  }

  function newGeneration(restart: boolean): void {
    if (!restart) return;
    candidates = [];
    said = 0;
  }

  /** Says the offer that was made while nothing could be said. */
  function flush(): void {
    if (offer === null || offer.sent || !(terms.open || terms.early)) return;
    offer.sent = true;
    unanswered = 0;
    sayOffer();
  }

  function sayOffer(): void {
    const { localDescription } = connection;
    if (localDescription === null || connection.signalingState !== "have-local-offer") return;
    // What is gathered by now stands in the description itself.
    said = candidates.length;
    events.send({ kind: "description", type: "offer", sdp: wished(localDescription.sdp) });
    unansweredTimer?.();
    unansweredTimer = env.after(Math.min(LONGEST_UNANSWERED_MS, UNANSWERED_MS * 2 ** unanswered), () => {
      unanswered += 1;
      run(sayOffer);
    });
  }

  function answered(): void {
    offer = null;
    unansweredTimer?.();
    unansweredTimer = null;
  }

  function sayCandidates(): void {
    if (!(terms.open || terms.early) || held !== null) return;
    if (connection.localDescription === null || (offer !== null && !offer.sent)) return;
    for (const candidate of candidates.slice(said)) events.send(candidate);
    said = candidates.length;
  }

  async function rollBack(): Promise<void> {
    if (connection.signalingState !== "have-local-offer") return;
    if (offer?.restart === true) wantsRestart = true;
    answered();
    await connection.setLocalDescription({ type: "rollback" });
  }

  // ------------------------------------------------------------------ receiving

  async function take({ type, sdp }: Description, asked: Asked | null): Promise<void> {
    if (type === "answer") {
      // The offer it was made for has been taken back.
      if (asked !== offer) return;
      // An offer that was said twice is answered twice.
      if (connection.signalingState !== "have-local-offer" || offer?.sent !== true) return;
      answered();
      await connection.setRemoteDescription({ type, sdp });
    } else {
      const collision = connection.signalingState !== "stable";
      ignoring = collision && !polite;
      if (ignoring) return;
      const before = ufragOf(connection.remoteDescription?.sdp);
      if (collision) await rollBack();
      // Until this side has answered, nothing is to be tried, and so nothing can fail: the candidates wait as well.
      const [bare, waiting] = terms.open ? [sdp, []] : withoutCandidates(sdp);
      await connection.setRemoteDescription({ type, sdp: bare });
      early.push(...waiting);
      const restarted = before !== null && before !== ufragOf(sdp);
      if (restarted) wantsRestart = false;
      await arrange();
      newGeneration(restarted);
      const made = key();
      await answer();
      held = made;
      if (terms.open) sayAnswer();
      wantsOffer = wantsRestart;
    }
    if (held !== null) return;
    for (const candidate of early.splice(0)) await add(candidate);
    // The encodings of a part that was just made for this side hold only from here on in some browsers.
    await dress();
    const unmet = parts.some((part) => part.direction === "sendrecv" && part.currentDirection === "inactive");
    if (type === "offer" && unmet) wantOffer(polite ? YIELD_MS : 0);
    else if (wantsOffer) wantOffer(polite ? YIELD_MS : 0);
    events.changed();
  }

  function sayAnswer(): void {
    held = null;
    const { localDescription } = connection;
    if (localDescription === null) return;
    // A final answer after a provisional one lacks what was gathered in between.
    const lacking = candidates.filter(({ candidate }) => !localDescription.sdp.includes(candidate));
    said = candidates.length;
    events.send({ kind: "description", type: "answer", sdp: withCandidates(wished(localDescription.sdp), lacking) });
  }

  /** The call is open: says what was prepared while it rang, if it still is what both want. */
  async function open(): Promise<void> {
    if (held === null) {
      flush();
      return;
    }
    if (held !== key()) {
      events.outdated();
      return;
    }
    sayAnswer();
    for (const candidate of early.splice(0)) await add(candidate);
    await dress();
    events.changed();
  }

  /**
   * Chromium discards what it gathered beforehand at a first description that is a final answer, and then takes the
   * time of a whole gathering; a provisional one of the same words makes use of it.
   */
  async function answer(): Promise<void> {
    if (connection.currentLocalDescription !== null) {
      await connection.setLocalDescription();
      return;
    }
    const description = await connection.createAnswer();
    try {
      await connection.setLocalDescription({ ...description, type: "pranswer" });
    } catch {
      // Firefox has no provisional answers, and no such need.
    }
    await connection.setLocalDescription(description);
  }

  async function add({ candidate, mid, line, ufrag }: Candidate): Promise<void> {
    if (ignoring) return;
    if (connection.remoteDescription === null || held !== null) {
      early.push({ kind: "candidate", candidate, mid: mid ?? null, line: line ?? null, ufrag: ufrag ?? null });
      return;
    }
    try {
      await connection.addIceCandidate({
        candidate,
        sdpMid: mid ?? null,
        sdpMLineIndex: line ?? (mid == null ? 0 : null),
        usernameFragment: ufrag ?? null,
      });
    } catch {
      // Of a generation that is gone; those of this one come with it.
    }
  }

  if (!polite) wantOffer();

  return {
    connection,
    met: () => connection.remoteDescription !== null,
    received() {
      const of = (index: number) => parts[index]?.receiver.track;
      const there = (track: MediaStreamTrack | undefined) => track !== undefined;
      return { tracks: [of(0), of(1)].filter(there), screen: [of(2), of(3)].filter(there) };
    },
    cameraMid: () => parts[1]?.mid ?? null,
    agree(next) {
      const before = { terms, key: key() };
      terms = next;
      const relays = next.direct !== before.terms.direct || JSON.stringify(next.servers) !== JSON.stringify(before.terms.servers);
      if (relays) connection.setConfiguration(configurationOf(next));
      const opens = next.open && !before.terms.open;
      const differs = key() !== before.key;
      if (!differs || (opens && held !== null)) {
        if (next.rung !== before.terms.rung) run(dress);
        if (opens) run(open);
        return;
      }
      // What was gathered under other rules is of no use, nor are the addresses the partner has by now.
      if (next.direct !== before.terms.direct) wantsRestart = true;
      run(async () => {
        if (parts.length > 0) await arrange();
        // An offer that nobody has seen, or could answer, is made anew; one on its way is answered first.
        if (offer !== null && (opens || !offer.sent)) await rollBack();
      });
      wantOffer(polite ? YIELD_MS : 0);
    },
    carry(next) {
      tracks = next;
      run(dress);
    },
    limit(next) {
      if (next === level) return;
      level = next;
      run(dress);
    },
    receive(signal, asked = offer) {
      run(() => (signal.kind === "description" ? take(signal, asked) : add(signal)));
    },
    asked: () => offer,
    restart() {
      wantsRestart = true;
      run(rollBack);
      wantOffer();
    },
    repeat() {
      if (!terms.open && !terms.early) return false;
      if (offer?.sent === true) {
        sayOffer();
        return true;
      }
      said = 0;
      sayCandidates();
      return false;
    },
    refused({ type }) {
      if (type === "offer") run(rollBack);
      wantOffer(REFUSED_MS);
    },
    close() {
      if (closed) return;
      closed = true;
      offerTimer?.();
      unansweredTimer?.();
      early = [];
      connection.close();
    },
  };
}

/** Sets how a sender encodes. Returns whether it holds. */
export async function encode(sender: RTCRtpSender, encoding: RTCRtpEncodingParameters): Promise<boolean> {
  const parameters = sender.getParameters();
  // Some browsers list none before the first negotiation, and take them all the same.
  const [now] = (parameters as { encodings?: RTCRtpEncodingParameters[] }).encodings ?? [];
  const wanted = Object.entries(encoding);
  if (now !== undefined && wanted.every(([name, value]) => now[name as keyof RTCRtpEncodingParameters] === value)) return true;
  parameters.encodings = [{ ...now, ...encoding }];
  try {
    await sender.setParameters(parameters);
    return true;
  } catch {
    return false;
  }
}

function isBlurred(sender: RTCRtpSender): boolean {
  return (sender.getParameters().encodings[0]?.scaleResolutionDownBy ?? 1) > 4;
}

/** The shorter side of a camera's picture, in pixels. */
export function sideOf(track: MediaStreamTrack | null): number | null {
  const { width, height } = track?.getSettings() ?? {};
  return width === undefined || height === undefined ? null : Math.min(width, height);
}

const AUDIO_ORDER = ["audio/red", "audio/opus"];
/** By how well they are supported in hardware and how little they ask of a processor without. */
const VIDEO_ORDER = ["video/vp8", "video/h264", "video/vp9"];

/** Beside those: what repairs lost packets of whichever it is. */
const REPAIRS = ["video/rtx"];

/** Offers the preferred codecs only, in order, where the browser lets one choose: fewer of them are sooner agreed on. */
export function preferCodecs(env: Env, transceiver: RTCRtpTransceiver, kind: "audio" | "video", order = kind === "audio" ? AUDIO_ORDER : VIDEO_ORDER): void {
  if (!("setCodecPreferences" in transceiver)) return;
  const rank = ({ mimeType }: RTCRtpCodec) => {
    const index = order.indexOf(mimeType.toLowerCase());
    return index === -1 ? order.length : index;
  };
  const known = env.media.codecs(kind);
  const codecs = known.filter((codec) => rank(codec) < order.length).sort((one, other) => rank(one) - rank(other));
  if (codecs.length === 0) return;
  codecs.push(...known.filter(({ mimeType }) => REPAIRS.includes(mimeType.toLowerCase())));
  try {
    transceiver.setCodecPreferences(codecs);
  } catch {
    // The browser's own order works as well.
  }
}

/**
 * The wishes for what is sent here that no API has: Opus repairs lost packets and falls silent in silence. Only in
 * what the partner reads: the description in force stays as the browser made it.
 */
export function wished(sdp: string): string {
  const opus = new Set(Array.from(sdp.matchAll(/^a=rtpmap:(\d+) opus\/48000/gim), ([, type]) => type));
  return sdp.replace(/^a=fmtp:(\d+) ([^\r\n]*)/gm, (line, type: string, parameters: string) => {
    if (!opus.has(type)) return line;
    const kept = parameters.split(";").filter((parameter) => !/^\s*(useinbandfec|usedtx)=/.test(parameter));
    return `a=fmtp:${type} ${[...kept, "useinbandfec=1", "usedtx=1"].join(";")}`;
  });
}

/** A description without its candidates, and those by themselves. */
function withoutCandidates(sdp: string): readonly [string, Candidate[]] {
  const candidates: Candidate[] = [];
  let line = -1;
  const kept = sdp.split("\r\n").filter((text) => {
    if (text.startsWith("m=")) line += 1;
    if (!text.startsWith("a=candidate:")) return text !== "a=end-of-candidates";
    candidates.push({ kind: "candidate", candidate: text.slice(2), mid: null, line, ufrag: null });
    return false;
  });
  return [kept.join("\r\n"), candidates];
}

/** A description with these candidates in their sections. */
function withCandidates(sdp: string, candidates: readonly Candidate[]): string {
  const sections = sdp.split(/^(?=m=)/m);
  for (const { candidate, line } of candidates) {
    const index = (line ?? 0) + 1;
    if (sections[index] !== undefined) sections[index] += `a=${candidate}\r\n`;
  }
  return sections.join("");
}

function ufragOf(sdp: string | undefined): string | null {
  return /^a=ice-ufrag:(\S+)/m.exec(sdp ?? "")?.[1] ?? null;
}
