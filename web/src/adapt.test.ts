import { describe, expect, it } from "vitest";
import { adapt, cameraEncoding, judge, read, sendingAt, UNADAPTED, type Quality, type Sample } from "./adapt";

const WELL: Sample = { lossOut: 0, lossIn: 0, roundTripMs: 40, jitterMs: 3, availableKbps: 3_000, limited: "none" };
const run = (samples: readonly Sample[], from = UNADAPTED) => samples.reduce(adapt, from);
const times = (count: number, part: Partial<Sample> = {}) => Array.from({ length: count }, () => ({ ...WELL, ...part }));
const sendingAfter = (...samples: readonly Sample[][]) => sendingAt(run(samples.flat()).level);

describe("adaptation", () => {
  it("leaves a good path alone, and a single bad second", () => {
    expect(sendingAfter(times(60))).toBe("full");
    expect(sendingAfter(times(5), times(1, { lossOut: 12 }), times(5))).toBe("full");
  });

  it("makes the picture smaller before it goes, and leaves the sound to the very end", () => {
    expect(sendingAfter(times(2, { lossOut: 12 }))).toBe("reduced");
    expect(sendingAfter(times(6, { lossOut: 12 }))).toBe("reduced");
    expect(sendingAfter(times(20, { lossOut: 12 }))).toBe("audio");
  });

  it("is down to sound within seconds when nearly everything is lost", () => {
    expect(sendingAfter(times(8, { lossOut: 40, availableKbps: 30, limited: "bandwidth" }))).toBe("audio");
  });

  it("believes an estimate only where it holds the picture back, and not in its first seconds", () => {
    // A blurred picture asks for little, and of more than that little nobody knows.
    expect(sendingAfter(times(60, { availableKbps: 120 }))).toBe("full");
    expect(sendingAfter(times(3, { availableKbps: 300, limited: "bandwidth" }), times(5))).toBe("full");
    expect(sendingAfter(times(6, { availableKbps: 300, limited: "bandwidth" }))).toBe("reduced");
  });

  it("comes back up, slower than it went down", () => {
    const down = run(times(20, { lossOut: 12 }));
    expect(sendingAt(run(times(4), down).level)).toBe("audio");
    expect(sendingAt(run(times(12), down).level)).toBe("reduced");
    expect(sendingAt(run(times(60), down).level)).toBe("full");
  });

  it("does not swing: a step up that proves wrong is dared ever more rarely", () => {
    // A path that takes 300 kbit/s and no more, as seen from each level.
    let state = UNADAPTED;
    let changes = 0;
    for (let second = 0; second < 300; second += 1) {
      const tooMuch = state.level < 2;
      const next = adapt(state, { ...WELL, lossOut: tooMuch ? 15 : 0 });
      if (next.level !== state.level) changes += 1;
      state = next;
    }
    expect(changes).toBeLessThan(26);
    expect(state.patience).toBe(60);
  });

  it("helps a processor that cannot keep up, without taking the picture away", () => {
    expect(sendingAfter(times(60, { limited: "cpu" }))).toBe("reduced");
  });
});

describe("quality", () => {
  const words = (samples: readonly Sample[]) => {
    let quality: Quality | null = null;
    return samples.map((sample) => (quality = judge(quality, sample)).word);
  };

  it("gets worse at once and better after a while", () => {
    const said = words([...times(2), ...times(1, { lossIn: 14 }), ...times(5)]);
    expect(said).toEqual(["good", "good", "poor", "poor", "poor", "poor", "good", "good"]);
  });

  it.each([
    [{ lossIn: 5 }, "fair"],
    [{ lossOut: 12 }, "poor"],
    [{ roundTripMs: 400 }, "fair"],
    [{ roundTripMs: 900 }, "poor"],
    [{ jitterMs: 60 }, "fair"],
    [{ lossIn: null, lossOut: null, roundTripMs: null, jitterMs: null }, "good"],
  ] as const)("of %o is %s", (part, word) => {
    expect(judge(null, { ...WELL, ...part }).word).toBe(word);
  });
});

describe("blurring", () => {
  it.each([480, 720, 1080])("leaves 24 to 36 lines of %i", (side) => {
    const { scaleResolutionDownBy, maxBitrate } = cameraEncoding(true, 0, side);
    expect(side / (scaleResolutionDownBy ?? 1)).toBeGreaterThanOrEqual(24);
    expect(side / (scaleResolutionDownBy ?? 1)).toBeLessThanOrEqual(36);
    expect(maxBitrate).toBe(40_000);
  });

  it("is rather too strong than too weak where the size is not known", () => {
    expect(480 / (cameraEncoding(true, 0, null).scaleResolutionDownBy ?? 1)).toBeLessThan(24);
  });
});

describe("readings", () => {
  const report = (packets: number, lost: number, bytes: number) =>
    new Map<string, unknown>([
      ["A", { id: "A", type: "inbound-rtp", kind: "audio", packetsReceived: packets, packetsLost: lost, bytesReceived: bytes, jitter: 0.004, codecId: "C" }],
      ["C", { id: "C", type: "codec", mimeType: "audio/opus" }],
      ["R", { id: "R", type: "remote-inbound-rtp", kind: "audio", fractionLost: 0.05, roundTripTime: 0.2 }],
      ["T", { id: "T", type: "transport", selectedCandidatePairId: "P" }],
      ["P", { id: "P", type: "candidate-pair", localCandidateId: "L", currentRoundTripTime: 0.08, availableOutgoingBitrate: 250_000 }],
      ["L", { id: "L", type: "local-candidate", candidateType: "relay", relayProtocol: "tls", protocol: "udp" }],
    ]);

  it("tell what happened since the one before", () => {
    const first = read(report(100, 0, 8_000), 1_000, null, null);
    const second = read(report(190, 10, 16_000), 3_000, null, first);
    expect(second.sample).toEqual({ lossOut: 5, lossIn: 10, roundTripMs: 80, jitterMs: 4, availableKbps: 250, limited: "none" });
    expect(second.numbers).toMatchObject({ receiveKbps: 32, lossPercent: 10, audioCodec: "opus", path: "relay", transport: "tls" });
    expect(second.alive).toBeGreaterThan(first.alive);
    expect(read(report(190, 10, 16_000), 4_000, null, second).alive).toBe(second.alive);
  });

  it("of a connection that is not one yet say nothing", () => {
    const { numbers, sample } = read(new Map(), 0, null, null);
    expect(Object.values(numbers).every((value) => value === null)).toBe(true);
    expect(sample.limited).toBe("none");
  });
});
