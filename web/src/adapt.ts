/**
 * What a path can carry: reads a peer connection's statistics, says in a word how good it is, and decides how much
 * video to send. Sound comes first: video gets smaller before it goes, and goes before sound suffers. Pure.
 */
import type { CallNumbers, CallView } from "./model";

// ------------------------------------------------------------------ reading

/** One reading, with what the next one needs to tell what happened in between. */
export interface Reading {
  readonly at: number;
  readonly numbers: CallNumbers;
  /** Grows while anything at all arrives. */
  readonly alive: number;
  /** Video frames decoded and sound packets received so far. */
  readonly frames: number;
  readonly sample: Sample;
  readonly counters: Counters;
}

interface Counters {
  readonly received: number;
  readonly lost: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly pair: string;
  readonly pairSigns: number;
}

/** What adaptation looks at; null where not known. */
export interface Sample {
  /** 0 to 100, of what this side sent, as the other side reports it. */
  readonly lossOut: number | null;
  /** 0 to 100, of what should have arrived here. */
  readonly lossIn: number | null;
  readonly roundTripMs: number | null;
  readonly jitterMs: number | null;
  /** What the browser believes the path takes. */
  readonly availableKbps: number | null;
  /** What holds the encoder back. */
  readonly limited: "none" | "bandwidth" | "cpu" | "other";
}

type Stat = Readonly<Record<string, unknown>>;

function number(stat: Stat | undefined, name: string): number | null {
  const value = stat?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** Reads what the browser counts (W3C webrtc-stats); `camera` is the mid of the cameras' part. */
export function read(report: ReadonlyMap<string, unknown>, at: number, camera: string | null, before: Reading | null): Reading {
  const stats = [...report.values()] as Stat[];
  const byId = (id: unknown) => (typeof id === "string" ? (report.get(id) as Stat | undefined) : undefined);
  const inbound = stats.filter((stat) => stat.type === "inbound-rtp");
  const outbound = stats.filter((stat) => stat.type === "outbound-rtp");
  const remote = stats.filter((stat) => stat.type === "remote-inbound-rtp");
  const sum = (of: readonly Stat[], name: string) => of.reduce((total, stat) => total + (number(stat, name) ?? 0), 0);
  const most = (of: readonly Stat[], name: string) =>
    of.reduce<number | null>((top, stat) => {
      const value = number(stat, name);
      return value === null ? top : Math.max(top ?? 0, value);
    }, null);

  const transport = stats.find((stat) => stat.type === "transport" && stat.selectedCandidatePairId !== undefined);
  const pair =
    byId(transport?.selectedCandidatePairId) ??
    stats.find((stat) => stat.type === "candidate-pair" && (stat.selected === true || (stat.nominated === true && stat.state === "succeeded")));
  const local = byId(pair?.localCandidateId);

  const pairId = typeof pair?.id === "string" ? pair.id : "";
  const pairSigns = (number(pair, "responsesReceived") ?? 0) + (number(pair, "requestsReceived") ?? 0);
  const counters: Counters = {
    received: sum(inbound, "packetsReceived"),
    lost: sum(inbound, "packetsLost"),
    bytesIn: sum(inbound, "bytesReceived"),
    bytesOut: sum(outbound, "bytesSent"),
    pair: pairId,
    pairSigns,
  };
  const then = before?.counters;
  const seconds = before === null ? 0 : (at - before.at) / 1000;
  const since = (now: number, past: number | undefined) => Math.max(0, now - (past ?? now));
  const received = since(counters.received, then?.received);
  const lost = since(counters.lost, then?.lost);
  const rate = (now: number, past: number | undefined) => (seconds > 0 ? Math.round((since(now, past) * 8) / 1000 / seconds) : null);

  // Counters of another pair say nothing about this one.
  const signs = then?.pair === pairId ? since(pairSigns, then.pairSigns) : 0;
  const roundTrip = number(pair, "currentRoundTripTime") ?? most(remote, "roundTripTime");
  const fractions = remote.flatMap((stat) => number(stat, "fractionLost") ?? []);
  const jitter = most(inbound, "jitter");
  const available = number(pair, "availableOutgoingBitrate");
  const video = (of: readonly Stat[]) => of.find((stat) => stat.kind === "video" && (camera === null || stat.mid === undefined || stat.mid === camera));
  const picture = (stat: Stat | undefined) => {
    const [width, height] = [number(stat, "frameWidth"), number(stat, "frameHeight")];
    return width === null || height === null ? null : { width, height, fps: Math.round(number(stat, "framesPerSecond") ?? 0) };
  };
  const codec = (kind: string) => {
    const heard = [...inbound, ...outbound].find((stat) => stat.kind === kind && stat.codecId !== undefined);
    const mimeType = byId(heard?.codecId)?.mimeType;
    return typeof mimeType === "string" ? (mimeType.split("/")[1] ?? null) : null;
  };
  const sent = video(outbound);
  const reason = sent?.qualityLimitationReason;
  const sample: Sample = {
    lossOut: fractions.length === 0 ? null : Math.max(...fractions) * 100,
    lossIn: received + lost === 0 ? null : (100 * lost) / (received + lost),
    roundTripMs: roundTrip === null ? null : Math.round(roundTrip * 1000),
    jitterMs: jitter === null ? null : Math.round(jitter * 1000),
    availableKbps: available === null ? null : Math.round(available / 1000),
    limited: reason === "bandwidth" || reason === "cpu" || reason === "other" ? reason : "none",
  };
  // The share lost is smoothed over about three seconds: a single reading of few packets says little.
  const weight = Math.min(1, seconds / 3);
  const earlier = before?.numbers.lossPercent ?? null;
  const loss = sample.lossIn === null ? earlier : earlier === null ? sample.lossIn : earlier + (sample.lossIn - earlier) * weight;
  const protocol = local?.relayProtocol ?? local?.protocol;
  return {
    at,
    alive: (before?.alive ?? 0) + received + signs,
    frames: counters.received,
    sample,
    counters,
    numbers: {
      roundTripMs: sample.roundTripMs,
      lossPercent: loss === null ? null : Math.round(loss * 10) / 10,
      jitterMs: sample.jitterMs,
      sendKbps: rate(counters.bytesOut, then?.bytesOut),
      receiveKbps: rate(counters.bytesIn, then?.bytesIn),
      sendVideo: picture(sent),
      receiveVideo: picture(video(inbound)),
      audioCodec: codec("audio"),
      videoCodec: codec("video"),
      path: local === undefined ? null : local.candidateType === "relay" ? "relay" : "direct",
      transport: protocol === "udp" || protocol === "tcp" || protocol === "tls" ? protocol : null,
    },
  };
}

// ------------------------------------------------------------------ quality

/** In a word, for a person. Worse at once, better only after a while of it. */
export interface Quality {
  readonly word: NonNullable<CallView["quality"]>;
  readonly better: number;
}

const WORDS = ["poor", "fair", "good"] as const;
const BETTER_AFTER = 4;

export function judge(before: Quality | null, sample: Sample): Quality {
  const loss = Math.max(sample.lossIn ?? 0, sample.lossOut ?? 0);
  const roundTrip = sample.roundTripMs ?? 0;
  const jitter = sample.jitterMs ?? 0;
  // Loss of a tenth breaks words in spite of error correction; beyond 150 ms one way, people talk into each other (G.114).
  const word =
    loss > 10 || roundTrip > 700 || jitter > 120 ? "poor" : loss > 3 || roundTrip > 300 || jitter > 50 ? "fair" : "good";
  if (before === null || WORDS.indexOf(word) <= WORDS.indexOf(before.word)) return { word, better: 0 };
  const better = before.better + 1;
  return better >= BETTER_AFTER ? { word, better: 0 } : { word: before.word, better };
}

// ------------------------------------------------------------------ adaptation

interface Level {
  /** Of the camera's own size. */
  readonly scale: number;
  readonly kbps: number;
  readonly fps: number;
}

/** From all of the video down to none of it. */
const LEVELS: readonly (Level | null)[] = [
  { scale: 1, kbps: 1_200, fps: 30 },
  { scale: 1.5, kbps: 500, fps: 24 },
  { scale: 2, kbps: 250, fps: 20 },
  { scale: 3, kbps: 120, fps: 15 },
  null,
];
const SOUND_ONLY = LEVELS.length - 1;
const SOUND_KBPS = 40;
/** Good samples, one a second, before a step up is dared; doubled each time a step up proves wrong. */
const FIRST_PATIENCE = 6;
const LONGEST_PATIENCE = 60;
/** A step up that is taken back within this many samples was wrong. */
const TRIAL = 10;

export interface Adaptation {
  readonly level: number;
  readonly bad: number;
  readonly good: number;
  readonly patience: number;
  /** Samples since the last step up; null if it has proved right. */
  readonly trial: number | null;
}

export const UNADAPTED: Adaptation = { level: 0, bad: 0, good: 0, patience: FIRST_PATIENCE, trial: null };

/** One sample a second, while connected. */
export function adapt(before: Adaptation, sample: Sample): Adaptation {
  const now = LEVELS[before.level] ?? null;
  const needed = (now?.kbps ?? 0) + SOUND_KBPS;
  const loss = sample.lossOut ?? 0;
  const roundTrip = sample.roundTripMs ?? 0;
  // The estimate follows what is sent: of a path that is asked for little, as by a blurred picture, it knows little.
  // Only where it holds the encoder back does it count, and then first as an estimate that is still growing.
  const room = sample.limited === "bandwidth" ? (sample.availableKbps ?? Infinity) : Infinity;
  // An encoder held back by the processor is helped by less work, however good the path is.
  const busy = sample.limited === "cpu" && before.level < SOUND_ONLY - 1;
  const narrow = room < needed * 0.6;
  const harmed = loss > 8 || roundTrip > 900;
  const terrible = loss > 25 || room < needed * 0.1;
  if (before.level < SOUND_ONLY && (harmed || narrow || busy)) {
    // Only what starves sound itself takes the picture away altogether.
    const last = before.level === SOUND_ONLY - 1;
    const count = before.bad + (terrible && !last ? 2 : 1);
    if (count < (last || (narrow && !harmed) ? 4 : 2)) return { ...before, bad: count, good: 0 };
    const patience = before.trial === null ? before.patience : Math.min(LONGEST_PATIENCE, before.patience * 2);
    return { level: before.level + 1, bad: 0, good: 0, patience, trial: null };
  }
  const trial = before.trial === null || before.trial >= TRIAL ? null : before.trial + 1;
  const patience = before.trial !== null && trial === null ? FIRST_PATIENCE : before.patience;
  const good = loss < 3 && roundTrip < 500 && sample.limited !== "cpu";
  if (!good) return { ...before, bad: 0, good: 0, trial, patience };
  const count = before.good + 1;
  if (before.level === 0 || count < patience) return { ...before, bad: 0, good: count, trial, patience };
  return { level: before.level - 1, bad: 0, good: 0, patience, trial: 0 };
}

export function sendingAt(level: number): CallView["sending"] {
  return level === 0 ? "full" : level >= SOUND_ONLY ? "audio" : "reduced";
}

// ------------------------------------------------------------------ encodings

/** Pixels of a blurred picture's shorter side: a shape and its movements, no face. */
const BLURRED_SIDE = 27;
const BLURRED_KBPS = 40;

/**
 * How the camera is sent. Blurring happens here, at the sender: what never leaves cannot be sharpened by a receiver.
 * `side` is the shorter side of the camera's picture, in pixels; null while the browser does not say.
 */
export function cameraEncoding(blurred: boolean, level: number, side: number | null): RTCRtpEncodingParameters {
  const step = LEVELS[level] ?? null;
  if (blurred) {
    // Unknown counts as large: better too coarse than too clear.
    const scaleResolutionDownBy = Math.max(1, (side ?? 1080) / BLURRED_SIDE);
    return { active: step !== null, maxBitrate: BLURRED_KBPS * 1000, scaleResolutionDownBy, maxFramerate: 15 };
  }
  const { scale, kbps, fps } = step ?? { scale: 4, kbps: 60, fps: 5 };
  return { active: step !== null, maxBitrate: kbps * 1000, scaleResolutionDownBy: scale, maxFramerate: fps };
}

/** A shared screen is to be read: rather few frames than small ones. */
export function screenEncoding(level: number): RTCRtpEncodingParameters {
  const kbps = [1_500, 800, 400, 200, 100][level] ?? 100;
  return { active: true, maxBitrate: kbps * 1000, scaleResolutionDownBy: 1, maxFramerate: level === 0 ? 15 : 5 };
}
