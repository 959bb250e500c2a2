import { describe, expect, it } from "vitest";
import { Network, type Browser } from "./network.fake";
import type { FakePeer } from "./peer.fake";

/** Two guests in a call of this rung, which the first asked for. */
async function called(rung: "voice" | "blurred" | "clear" = "blurred", network = new Network()): Promise<[Network, Browser, Browser]> {
  const [ann, bob] = await network.pair();
  await Promise.all([ann.app.invite(rung), network.clock.run(500)]);
  await Promise.all([bob.app.accept(rung), network.clock.run(500)]);
  return [network, ann, bob];
}

const current = (browser: Browser) => {
  const peer = browser.devices.peers.at(-1);
  if (peer === undefined) throw new Error("no peer connection");
  return peer;
};
const descriptions = (network: Network, from?: Browser) =>
  network.requested("call:signal", from).flatMap(({ signal }) => (signal.kind === "description" ? [signal.type] : []));
const alive = (peers: readonly FakePeer[]) => peers.filter(({ connectionState }) => connectionState !== "closed").length;

describe("an invitation", () => {
  it("rings here and there, and is a call once it is taken", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const [code] = await Promise.all([ann.app.invite("voice"), network.clock.run(500)]);
    expect(code).toBeNull();
    expect(ann.call).toMatchObject({ phase: "calling", video: false, relay: true });
    expect(bob.call).toMatchObject({ phase: "ringing", video: false });
    expect([ann.moments.at(-1), bob.moments.at(-1)]).toEqual(["ringback", "ring"]);
    expect(bob.devices.live).toEqual([]);
    await Promise.all([bob.app.accept("voice"), network.clock.run(500)]);
    for (const side of [ann, bob]) {
      expect(side.call).toMatchObject({ phase: "live", rung: "voice", theirs: { media: { microphone: true, camera: false } } });
      expect(side.moments.slice(-2)).toEqual(["quiet", "joined"]);
      expect(side.devices.live).toEqual(["mic-1"]);
    }
  });

  it("offers while it rings, answers when it is taken, and takes no more than that", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    expect(current(ann).localDescription?.sdp).toContain("candidate:");
    expect(descriptions(network)).toEqual(["offer"]);
    expect(current(bob).signalingState).toBe("stable");
    await Promise.all([bob.app.accept("blurred"), network.clock.run(3_000)]);
    expect(descriptions(network)).toEqual(["offer", "answer"]);
    expect(network.requested("call:signal").filter(({ signal }) => signal.kind === "hello")).toEqual([]);
  });

  it("begins anew when it is taken for less than was offered, and nothing of the offer holds", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    await Promise.all([bob.app.accept("voice"), network.clock.run(6_000)]);
    for (const side of [ann, bob]) {
      expect(side.call).toMatchObject({ phase: "live", rung: "voice" });
      expect(current(side).transceivers.map(({ currentDirection }) => currentDirection).slice(0, 2)).toEqual(["sendrecv", "inactive"]);
    }
  });

  it("becomes a call at once when both invite", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("clear"), bob.app.invite("blurred"), network.clock.run(1_000)]);
    for (const side of [ann, bob]) expect(side.call).toMatchObject({ phase: "live", rung: "blurred" });
  });

  it.each([
    ["is taken back", "ann", { what: "cancelled", by: "me" }, { what: "cancelled", by: "partner" }],
    ["is declined", "bob", { what: "declined", by: "partner" }, { what: "declined", by: "me" }],
  ] as const)("leaves a line when it %s, and nothing open", async (_, who, anns, bobs) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    await Promise.all([(who === "ann" ? ann : bob).app.endCall(), network.clock.run(500)]);
    expect(ann.talk.calls).toMatchObject([{ ...anns, video: true, seconds: null }]);
    expect(bob.talk.calls).toMatchObject([{ ...bobs, video: true, seconds: null }]);
    for (const side of [ann, bob]) {
      expect(side.app.call.get()).toBeNull();
      expect(side.moments.at(-1)).toBe("quiet");
      expect(side.devices.live).toEqual([]);
      expect(alive(side.devices.peers)).toBe(0);
    }
  });

  it.each([
    ["taken back", "ann", "cancelled"],
    ["declined", "bob", "declined"],
  ] as const)("that is %s without a network is so for the partner once it is back", async (_, who, what) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("voice"), network.clock.run(500)]);
    const [one, other] = who === "ann" ? [ann, bob] : [bob, ann];
    network.down = true;
    network.cut(one);
    await Promise.all([one.app.endCall(), network.clock.run(100)]);
    expect(one.moments.at(-1)).toBe("quiet");
    network.down = false;
    await network.clock.run(10_000);
    expect([ann.app.call.get(), bob.app.call.get()]).toEqual([null, null]);
    expect(one.talk.calls).toMatchObject([{ what, by: "me" }]);
    expect(other.talk.calls).toMatchObject([{ what, by: "partner" }]);
  });

  it("says who was missed", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("voice"), network.clock.run(500)]);
    network.changeCall(ann, (calls) => calls.finish("missed", null));
    await network.clock.run(100);
    expect(ann.talk.calls).toMatchObject([{ what: "missed", by: "me" }]);
    expect(bob.talk.calls).toMatchObject([{ what: "missed", by: "partner" }]);
  });

  it("says why it was refused, and lets go of the devices", async () => {
    const network = new Network();
    network.relays = 0;
    const [ann] = await network.pair();
    const [code] = await Promise.all([ann.app.invite("voice"), network.clock.run(500)]);
    expect(code).toBe("direct_needed");
    expect(ann.app.call.get()).toBeNull();
    expect(ann.devices.live).toEqual([]);
  });

  it("leaves no light on when taking it fails, and may be taken again", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    network.answerNext = { event: "call:accept", answer: { error: { code: "busy" } } };
    const [code] = await Promise.all([bob.app.accept("blurred"), network.clock.run(500)]);
    expect(code).toBe("busy");
    expect(bob.call.phase).toBe("ringing");
    expect(bob.devices.live).toEqual([]);
    await Promise.all([bob.app.accept("blurred"), network.clock.run(1_000)]);
    expect(bob.call.phase).toBe("live");
    expect(bob.devices.live).toEqual(["mic-1", "cam-1"]);
  });

  it("leaves no light on when it is declined before the answer to taking it comes", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("voice"), network.clock.run(500)]);
    network.mute(bob);
    void bob.app.accept("voice");
    await network.clock.run(100);
    expect(bob.devices.live).toEqual(["mic-1"]);
    void bob.app.endCall();
    await network.clock.run(100);
    expect(bob.devices.live).toEqual([]);
  });

  it("rings on beside a look at the own devices", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([bob.app.openDevices("video"), network.clock.run(500)]);
    await Promise.all([ann.app.invite("voice"), network.clock.run(500)]);
    expect(bob.call.phase).toBe("ringing");
    expect(bob.devices.live).toEqual(["mic-1", "cam-1"]);
    await Promise.all([ann.app.endCall(), network.clock.run(500)]);
    expect(bob.devices.live).toEqual(["mic-1", "cam-1"]);
  });

  it("works without a relay once both agree to connect directly", async () => {
    const network = new Network();
    network.relays = 0;
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("voice", true), network.clock.run(500)]);
    await Promise.all([bob.app.accept("voice", true), network.clock.run(500)]);
    expect(ann.call).toMatchObject({ phase: "live", direct: true, relay: false });
    await Promise.all([bob.app.agree({ direct: false }), network.clock.run(500)]);
    for (const side of [ann, bob]) {
      expect(side.call.phase).toBe("asking");
      expect(alive(side.devices.peers)).toBe(0);
    }
    await Promise.all([bob.app.agree({ direct: true }), network.clock.run(1_000)]);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });
});

describe("a call", () => {
  it("begins with the match in the modes that are calls", async () => {
    const network = new Network();
    const [ann, bob] = await network.pairIn("video");
    for (const side of [ann, bob]) {
      expect(side.call).toMatchObject({ phase: "live", rung: "blurred", theirs: { media: { microphone: true, camera: true } } });
    }
  });

  it("believes the newest state only", async () => {
    const [network, ann] = await called("voice");
    const state = network.guestOf(ann).talk?.calls.view(0);
    if (state?.call == null) throw new Error("no call");
    network.push(network.guestOf(ann), "call:state", { ...state, version: state.version - 1, call: null });
    network.push(network.guestOf(ann), "call:state", { ...state, version: 99, conversationId: "another", call: null });
    await network.clock.run(100);
    expect(ann.call.phase).toBe("live");
  });

  it("ends for both, with how long it had lasted", async () => {
    const [network, ann, bob] = await called();
    await network.clock.run(9_700);
    await Promise.all([bob.app.endCall(), network.clock.run(500)]);
    expect(ann.talk.calls).toMatchObject([{ what: "hung_up", by: "partner", seconds: 10, video: true }]);
    expect(bob.talk.calls).toMatchObject([{ what: "hung_up", by: "me", seconds: 10, video: true }]);
    for (const side of [ann, bob]) {
      expect(side.moments.at(-1)).toBe("hangup");
      expect(side.devices.live).toEqual([]);
      expect(alive(side.devices.peers)).toBe(0);
    }
  });

  it("is hung up at once without a network, and for the partner once it is back", async () => {
    const [network, ann, bob] = await called();
    network.down = true;
    network.cut(ann);
    await Promise.all([ann.app.endCall(), network.clock.run(100)]);
    expect(ann.app.call.get()).toBeNull();
    expect(ann.devices.live).toEqual([]);
    ann.reload();
    network.down = false;
    await network.clock.run(10_000);
    expect(ann.app.call.get()).toBeNull();
    expect(ann.talk.calls).toMatchObject([{ what: "hung_up", by: "me" }]);
    expect(bob.talk.calls).toMatchObject([{ what: "hung_up", by: "partner" }]);
  });

  it("is hung up for the partner once the link is back, without a reload as well", async () => {
    const [network, ann, bob] = await called();
    network.down = true;
    network.cut(ann);
    await Promise.all([ann.app.endCall(), network.clock.run(100)]);
    network.down = false;
    await network.clock.run(10_000);
    expect(ann.app.call.get()).toBeNull();
    expect(ann.talk.calls).toMatchObject([{ what: "hung_up", by: "me" }]);
    expect(bob.app.call.get()).toBeNull();
    expect(bob.talk.calls).toMatchObject([{ what: "hung_up", by: "partner" }]);
  });

  it.each([
    ["hung up here", "ann", false],
    ["hung up there", "bob", false],
    ["hung up there, after a reload", "bob", true],
  ] as const)("does not come back from a server that has lost its end: %s", async (_, who, reloads) => {
    const [network, ann, bob] = await called();
    const before = network.guestOf(ann).talk?.calls.call ?? null;
    await Promise.all([(who === "ann" ? ann : bob).app.endCall(), network.clock.run(500)]);
    const opened = ann.devices.opened.length;
    const said = network.requested("call:end", ann).length;
    network.changeCall(ann, (calls) => Object.assign(calls, { call: before, over: null }));
    if (reloads) ann.reload();
    await network.clock.run(3_000);
    expect(ann.app.call.get()).toBeNull();
    expect(ann.devices.opened).toHaveLength(opened);
    expect(network.requested("call:end", ann).slice(said)).toMatchObject([{ callId: before?.id }]);
    expect(network.guestOf(ann).talk?.calls.call).toBeNull();
    expect(ann.talk.calls).toHaveLength(1);
  });

  it("comes back after its end was only guessed", async () => {
    const [network, ann] = await called();
    const before = network.guestOf(ann).talk?.calls.call ?? null;
    network.changeCall(ann, (calls) => Object.assign(calls, { call: null, over: null }));
    await network.clock.run(500);
    expect(ann.talk.calls).toMatchObject([{ what: "lost" }]);
    network.changeCall(ann, (calls) => Object.assign(calls, { call: before }));
    await network.clock.run(8_000);
    expect(ann.call.phase).toBe("live");
  });

  it("goes with the conversation, and no light stays on", async () => {
    const [network, ann, bob] = await called();
    await Promise.all([bob.app.leave(), network.clock.run(500)]);
    expect(ann.talk.calls).toMatchObject([{ what: "hung_up", by: "partner" }]);
    expect(bob.talk.calls).toMatchObject([{ what: "hung_up", by: "me" }]);
    for (const side of [ann, bob]) {
      expect(side.app.call.get()).toBeNull();
      expect(side.devices.live).toEqual([]);
      expect(alive(side.devices.peers)).toBe(0);
    }
  });

  it("is lost when it ended while this guest was away and nobody knows how", async () => {
    const [network, ann] = await called();
    network.down = true;
    network.cut(ann);
    const talk = network.guestOf(ann).talk;
    if (talk) Object.assign(talk.calls, { call: null, over: null, version: talk.calls.version + 1 });
    network.down = false;
    await network.clock.run(3_000);
    expect(ann.talk.calls).toMatchObject([{ what: "lost", by: null, video: true }]);
  });

  it("keeps its line through a reload, once", async () => {
    const [network, ann, bob] = await called();
    await Promise.all([bob.app.endCall(), network.clock.run(500)]);
    ann.reload();
    await network.clock.run(1_000);
    expect(ann.talk.calls).toHaveLength(1);
  });

  it("flows on while the socket is away", async () => {
    const [network, ann] = await called();
    const peers = ann.devices.peers.length;
    network.down = true;
    network.cut(ann);
    await network.clock.run(8_000);
    expect(ann.call.phase).toBe("live");
    network.down = false;
    await network.clock.run(8_000);
    expect(ann.devices.peers).toHaveLength(peers);
    expect(descriptions(network)).toEqual(["offer", "answer"]);
  });

  it("stops here when the guest opens another window", async () => {
    const [network, ann] = await called();
    network.push(network.guestOf(ann), "session:replaced", {});
    await network.clock.run(100);
    expect(ann.app.call.get()).toBeNull();
    expect(ann.devices.live).toEqual([]);
    expect(ann.talk.calls).toEqual([]);
    ann.app.takeBack();
    await network.clock.run(3_000);
    expect(ann.call.phase).toBe("live");
  });
});

describe("a reload", () => {
  it.each(["ann", "bob"] as const)("of either side joins again with a new session: %s", async (who) => {
    const [network, ann, bob] = await called();
    const side = who === "ann" ? ann : bob;
    await Promise.all([side.app.setMicrophone(false), network.clock.run(500)]);
    const since = side.call.liveSince;
    side.reload();
    await network.clock.run(4_000);
    for (const one of [ann, bob]) {
      expect(one.call).toMatchObject({ phase: "live", rung: "blurred" });
      expect(alive(one.devices.peers)).toBe(1);
    }
    expect(side.call).toMatchObject({ liveSince: since, mine: { media: { microphone: false, camera: true } } });
    expect(side.app.devices.get().microphoneOn).toBe(false);
  });

  it("of both at once heals as well", async () => {
    const [network, ann, bob] = await called("voice");
    ann.reload();
    bob.reload();
    await network.clock.run(6_000);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });

  it("ignores what its former self still says", async () => {
    const [network, ann, bob] = await called("voice");
    const former = network.requested("call:signal", ann)[0];
    ann.reload();
    await network.clock.run(4_000);
    const peers = bob.devices.peers.length;
    if (former === undefined) throw new Error("nothing was said");
    network.push(network.guestOf(bob), "call:signal", { ...former, to: null });
    await network.clock.run(2_000);
    expect(bob.devices.peers).toHaveLength(peers);
    expect(bob.call.phase).toBe("live");
  });
});

/** An answer to this side's offer that the server should not have passed on yet. */
function hasten(network: Network, ann: Browser): void {
  const asked = network.requested("call:signal", ann)[0];
  if (asked?.signal.kind !== "description") throw new Error("nothing was offered");
  const sdp = asked.signal.sdp.replace(/ufrag\d+/, "ufragX").replace(/^a=candidate.*/gm, "a=candidate:ufragX typ relay");
  const signal = { kind: "description", type: "answer", sdp } as const;
  network.push(network.guestOf(ann), "call:signal", { ...asked, session: "hasty", to: asked.session, signal });
}

describe("an answer that comes before the call is open", () => {
  it("waits, and holds once it is", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    hasten(network, ann);
    await network.clock.run(500);
    expect(current(ann).signalingState).toBe("have-local-offer");
    expect(current(ann).remoteDescription).toBeNull();
    void bob.app.accept("blurred");
    await network.clock.run(32);
    expect(current(ann).remoteDescription?.sdp).toContain("ufragX");
  });

  it("is not taken for one to another offer when less was agreed to", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    hasten(network, ann);
    await network.clock.run(500);
    void bob.app.accept("voice");
    const seen = new Set<string | undefined>();
    for (let step = 0; step < 100; step += 1) {
      await network.clock.run(5);
      seen.add(current(ann).remoteDescription?.sdp);
    }
    expect([...seen].filter((sdp) => sdp?.includes("ufragX"))).toEqual([]);
    await network.clock.run(8_000);
    expect([ann.call, bob.call]).toMatchObject([{ phase: "live", rung: "voice" }, { phase: "live", rung: "voice" }]);
  });
});

describe("a partner whose sessions follow one another too fast", () => {
  it("makes a new connection once a second at most, and the newest session is the one that counts", async () => {
    const [network, ann, bob] = await called("voice");
    const asked = network.requested("call:signal", ann)[0];
    if (asked?.signal.kind !== "description") throw new Error("nothing was offered");
    const { signal } = asked;
    const peers = bob.devices.peers.length;
    for (let count = 0; count < 40; count += 1) {
      const sdp = signal.sdp.replace(/ufrag\d+/g, `ufragX${count}`);
      network.push(network.guestOf(bob), "call:signal", { ...asked, session: `new-${count}`, to: null, signal: { ...signal, sdp } });
      await network.clock.run(50);
    }
    expect(bob.devices.peers.length - peers).toBeLessThanOrEqual(3);
    await network.clock.run(1_000);
    expect(current(bob).remoteDescription?.sdp).toContain("ufragX39");
    expect(bob.devices.peers.length - peers).toBeLessThanOrEqual(4);
    ann.reload();
    await network.clock.run(6_000);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });
});

describe("signals that get lost", () => {
  it.each([1, 2, 3])("are said again: %i of them", async (count) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    network.swallow = { event: "call:signal", count };
    await Promise.all([bob.app.accept("blurred"), network.clock.run(15_000)]);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });

  it("heal when the socket breaks in the middle of the first offer", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    void bob.app.accept("blurred");
    await network.clock.run(21);
    network.cut(ann);
    await network.clock.run(6_000);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });

  it.each(["not_agreed", "description_refused", "rate_limited"])("are made anew after a refusal: %s", async (code) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    network.answerNext = { event: "call:signal", answer: { error: { code } } };
    await Promise.all([bob.app.accept("blurred"), network.clock.run(9_000)]);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });

  it("meant for another session are ignored", async () => {
    const [network, ann, bob] = await called("voice");
    const signal = { kind: "hello" } as const;
    const { callId, conversationId } = network.requested("call:signal", ann)[0] ?? { callId: "", conversationId: "" };
    network.push(network.guestOf(bob), "call:signal", { conversationId, callId, session: "other", signal, to: "not mine" });
    await network.clock.run(1_000);
    expect(bob.devices.peers).toHaveLength(1);
  });
});

describe("a path that dies", () => {
  it("is noticed and mended within three seconds, and both are told", async () => {
    const [network, ann, bob] = await called();
    await network.clock.run(5_000);
    const phases: string[] = [];
    ann.app.call.subscribe(() => phases.push(ann.call.phase));
    network.media.cut();
    await network.clock.run(3_000);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
    expect(phases).toContain("reconnecting");
    const offers = descriptions(network).filter((type) => type === "offer");
    expect(offers.length).toBeLessThanOrEqual(3);
    await network.clock.run(1_000);
    expect(network.requested("call:experience").map(({ what }) => what)).toContain("restarted");
  });

  it("is mended over another relay when the one in use is gone with its server", async () => {
    const [network, ann, bob] = await called();
    await network.clock.run(5_000);
    network.relays = 2;
    const talk = network.guestOf(ann).talk;
    if (talk) talk.calls.ice = network.ice();
    network.media.cut();
    network.down = true;
    network.cut(ann);
    await network.clock.run(2_000);
    network.down = false;
    await network.clock.run(5_000);
    expect(current(ann).configuration.iceServers).toHaveLength(2);
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });

  it("is looked for at once when the device changes networks", async () => {
    const [network, ann] = await called();
    await network.clock.run(3_000);
    network.media.cut();
    ann.move();
    await network.clock.run(800);
    expect(ann.call.phase).toBe("live");
  });

  it("ends the call after half a minute, and says so", async () => {
    const [network, ann, bob] = await called();
    await network.clock.run(5_000);
    network.media.dark = true;
    network.media.cut();
    await network.clock.run(34_000);
    expect([ann.app.call.get(), bob.app.call.get()]).toEqual([null, null]);
    expect(ann.talk.calls).toMatchObject([{ what: "failed" }]);
    expect(bob.talk.calls).toMatchObject([{ what: "failed" }]);
    expect(network.requested("call:experience").map(({ what }) => what)).toContain("failed");
  });
});

describe("the ladder", () => {
  it("blurs at the sender before the first frame, and until both say clear", async () => {
    const [network, ann, bob] = await called("blurred");
    await Promise.all([ann.app.agree({ rung: "clear" }), network.clock.run(500)]);
    expect(network.media.frames.length).toBeGreaterThan(0);
    // 480 lines down to 27.
    expect(network.media.frames.every(({ scale }) => scale > 13)).toBe(true);
    await Promise.all([bob.app.agree({ rung: "clear" }), network.clock.run(500)]);
    expect(network.media.frames.at(-1)?.scale).toBe(1);
    const upTo = network.media.frames.length;
    await Promise.all([bob.app.agree({ rung: "blurred" }), network.clock.run(500)]);
    expect(network.media.frames.slice(upTo).every(({ scale }) => scale > 13)).toBe(true);
  });

  it("blurs although the caller had asked for clear and prepared for it", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("clear"), network.clock.run(500)]);
    await Promise.all([bob.app.accept("blurred"), network.clock.run(500)]);
    expect(network.media.frames.length).toBeGreaterThan(0);
    expect(network.media.frames.every(({ scale }) => scale > 13)).toBe(true);
  });

  it("sends no picture at all where the browser will not blur it", async () => {
    const network = new Network();
    network.media.refusesParameters = true;
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("clear"), network.clock.run(500)]);
    await Promise.all([bob.app.accept("blurred"), network.clock.run(500)]);
    expect(ann.call.phase).toBe("live");
    expect(network.media.frames.filter(({ scale }) => scale < 13)).toEqual([]);
  });

  it("stops the picture of both the moment one takes it back, also before the server knows", async () => {
    const [network, ann, bob] = await called("clear");
    network.down = true;
    network.cut(ann);
    await Promise.all([ann.app.agree({ rung: "voice" }), network.clock.run(50)]);
    expect(ann.devices.live).toEqual(["mic-1"]);
    expect(current(ann).sending(1)).toBe(false);
    expect(ann.call).toMatchObject({ rung: "voice", mine: { media: { camera: false } } });
    network.down = false;
    await network.clock.run(4_000);
    expect(bob.call.rung).toBe("voice");
    expect(bob.devices.live).toEqual(["mic-1"]);
    const upTo = network.media.frames.length;
    await network.clock.run(3_000);
    expect(network.media.frames).toHaveLength(upTo);
  });

  it("forgets nothing that was taken back while the link was away when the page is reloaded", async () => {
    const [network, ann, bob] = await called("clear");
    network.down = true;
    network.cut(ann);
    await Promise.all([ann.app.agree({ rung: "voice" }), network.clock.run(50)]);
    const upTo = network.media.frames.length;
    ann.reload();
    network.down = false;
    await network.clock.run(8_000);
    for (const side of [ann, bob]) {
      expect(side.call).toMatchObject({ phase: "live", rung: "voice" });
      expect(side.devices.live).toEqual(["mic-1"]);
    }
    expect(network.media.frames).toHaveLength(upTo);
  });

  it("is said again to a server that took it for nothing new", async () => {
    const [network, ann, bob] = await called("clear");
    const stale = network.guestOf(ann).talk?.calls.view(0);
    network.answerNext = { event: "call:set", answer: { ok: stale } };
    await Promise.all([ann.app.agree({ rung: "blurred" }), network.clock.run(3_000)]);
    expect(bob.call.theirs.rung).toBe("blurred");
    expect(network.requested("call:set", ann).filter(({ rung }) => rung !== undefined)).toHaveLength(2);
  });

  it("ends where it was asked to last, although the server counts what came before it later", async () => {
    const [network, ann, bob] = await called("blurred");
    const stale = network.guestOf(ann).talk?.calls.view(0);
    void ann.app.agree({ rung: "clear" });
    await network.clock.run(5);
    void ann.app.agree({ rung: "blurred" });
    await network.clock.run(6);
    network.answerNext = { event: "call:set", answer: { ok: stale } };
    await network.clock.run(3_000);
    expect(bob.call.theirs.rung).toBe("blurred");
  });

  it("never shows a picture below the blurred rung, and brings it back with it", async () => {
    const [network, ann, bob] = await called("voice");
    expect(ann.devices.opened.map(({ kind }) => kind)).toEqual(["audio"]);
    await Promise.all([ann.app.agree({ rung: "blurred" }), network.clock.run(1_000)]);
    expect(network.media.frames).toEqual([]);
    await Promise.all([bob.app.agree({ rung: "blurred" }), network.clock.run(3_000)]);
    expect(network.media.frames.length).toBeGreaterThan(0);
    expect(bob.call).toMatchObject({ phase: "live", theirs: { media: { camera: true } } });
  });

  it("goes through relays only until both agree to connect directly, and again when one takes it back", async () => {
    const [network, ann, bob] = await called("voice");
    const candidates = () => network.requested("call:signal").map(({ signal }) => JSON.stringify(signal)).filter((text) => text.includes("typ host"));
    expect(current(ann).configuration.iceTransportPolicy).toBe("relay");
    expect(candidates()).toEqual([]);
    await Promise.all([ann.app.agree({ direct: true }), bob.app.agree({ direct: true }), network.clock.run(3_000)]);
    expect(current(ann).configuration.iceTransportPolicy).toBe("all");
    expect(candidates().length).toBeGreaterThan(0);
    await Promise.all([bob.app.agree({ direct: false }), network.clock.run(3_000)]);
    expect(current(ann).configuration.iceTransportPolicy).toBe("relay");
    expect(current(ann).localDescription?.sdp).not.toContain("typ host");
    expect([ann.call.phase, bob.call.phase]).toEqual(["live", "live"]);
  });
});

describe("what is sent", () => {
  it("tells the partner when the microphone or the camera goes off, and lets go of the camera", async () => {
    const [network, ann, bob] = await called();
    await Promise.all([ann.app.setMicrophone(false), ann.app.setCamera(false), network.clock.run(500)]);
    expect(bob.call.theirs.media).toEqual({ microphone: false, camera: false, screen: false });
    expect(ann.devices.live).toEqual(["mic-1"]);
    expect(ann.devices.opened[0]?.enabled).toBe(false);
    await Promise.all([ann.app.setMicrophone(true), ann.app.setCamera(true), network.clock.run(500)]);
    expect(bob.call.theirs.media).toEqual({ microphone: true, camera: true, screen: false });
  });

  it("joins with the microphone where the camera fails, and with nothing where both do", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.devices.errors.camera = "NotReadableError";
    Object.assign(bob.devices.errors, { camera: "NotAllowedError", microphone: "NotAllowedError" });
    bob.devices.permission = "denied";
    await Promise.all([ann.app.invite("blurred"), network.clock.run(500)]);
    await Promise.all([bob.app.accept("blurred"), network.clock.run(1_000)]);
    expect(ann.call).toMatchObject({ phase: "live", mine: { media: { microphone: true, camera: false } } });
    expect(bob.call).toMatchObject({ phase: "live", mine: { media: { microphone: false, camera: false } } });
    expect(ann.app.devices.get()).toMatchObject({ microphoneProblem: null, cameraProblem: "busy" });
    expect(bob.app.devices.get()).toMatchObject({ microphoneProblem: "denied", cameraProblem: "denied" });
  });

  it("shares a screen from the blurred rung on, until either the page or the browser stops it", async () => {
    const [network, ann, bob] = await called("blurred");
    await Promise.all([ann.app.shareScreen(), network.clock.run(500)]);
    expect(bob.call.theirs).toMatchObject({ media: { screen: true } });
    expect(bob.call.theirs.screen).not.toBeNull();
    expect(current(ann).sending(2)).toBe(true);
    ann.devices.opened.find(({ deviceId }) => deviceId === "screen")?.unplug();
    await network.clock.run(500);
    expect(bob.call.theirs).toMatchObject({ media: { screen: false }, screen: null });
  });

  it("refuses to share a screen below it, and says when the browser refused", async () => {
    const [network, ann, bob] = await called("voice");
    await Promise.all([ann.app.shareScreen(), network.clock.run(500)]);
    expect(ann.call.problem).toBe("not_agreed");
    ann.app.dismissProblem();
    expect(ann.call.problem).toBeNull();
    await Promise.all([ann.app.agree({ rung: "clear" }), bob.app.agree({ rung: "clear" }), network.clock.run(500)]);
    ann.devices.errors.screen = "NotAllowedError";
    await Promise.all([ann.app.shareScreen(), network.clock.run(500)]);
    expect(ann.call.problem).toBe("screen_denied");
  });

  it("asks for newer credentials before the old ones expire", async () => {
    const [network, ann] = await called("voice");
    await network.clock.run(430_000);
    expect(network.requested("call:servers", ann)).toHaveLength(1);
    expect(ann.call.phase).toBe("live");
  });

  it("counts how the call began, once", async () => {
    const [network, ann] = await called();
    await network.clock.run(20_000);
    expect(network.requested("call:experience", ann)).toMatchObject([{ what: "connected", path: "relay" }]);
    expect(network.requested("call:experience", ann)[0]?.firstFrameMs).toBeLessThan(500);
  });
});

describe("a recording", () => {
  it("sends to the recorder only while both agree, blurred as to the partner, and stops at once", async () => {
    const [network, ann, bob] = await called("blurred");
    await Promise.all([ann.app.agree({ recording: true }), network.clock.run(500)]);
    expect([ann.call.recording, bob.call.recording]).toEqual(["asked", "asked"]);
    expect(network.requested("recording:offer")).toEqual([]);
    await Promise.all([bob.app.agree({ recording: true }), network.clock.run(1_000)]);
    expect(ann.call.recording).toBe("starting");
    expect(network.requested("recording:offer", ann)).toMatchObject([{ sdp: expect.stringContaining("typ relay") as string }]);
    const recorder = current(ann);
    expect(recorder.transceivers.map(({ direction }) => direction)).toEqual(["sendonly", "sendonly"]);
    expect(recorder.transceivers[1]?.sender.encodings[0]?.scaleResolutionDownBy).toBeGreaterThan(13);
    network.changeCall(ann, ({ call }) => call?.recording && (call.recording = { ...call.recording, phase: "on" }));
    await network.clock.run(100);
    expect(ann.call.recording).toBe("on");
    expect(ann.moments.at(-1)).toBe("recorded");
    network.down = true;
    void ann.app.agree({ recording: false });
    expect(recorder.connectionState).toBe("closed");
    expect(ann.call.recording).toBe("off");
  });

  it("waits until a recorder has been found, with one and the same offer, but not for ever", async () => {
    const [network, ann, bob] = await called("voice");
    network.recorderFound = false;
    await Promise.all([ann.app.agree({ recording: true }), bob.app.agree({ recording: true }), network.clock.run(5_000)]);
    const connections = ann.devices.peers.length;
    expect(network.requested("recording:offer", ann).length).toBeGreaterThan(5);
    expect(new Set(network.requested("recording:offer", ann).map(({ session }) => session)).size).toBe(1);
    network.recorderFound = true;
    await network.clock.run(1_000);
    const asked = network.requested("recording:offer", ann).length;
    current(ann).become("failed");
    network.recorderFound = false;
    await network.clock.run(30_000);
    expect(ann.devices.peers).toHaveLength(connections + 1);
    expect(network.requested("recording:offer", ann).length).toBeLessThan(asked + 25);
  });

  it("is mended after each change of networks", async () => {
    const [network, ann, bob] = await called("voice");
    await Promise.all([ann.app.agree({ recording: true }), bob.app.agree({ recording: true }), network.clock.run(1_000)]);
    for (const offers of [2, 3, 4]) {
      current(ann).become("connected");
      current(ann).become("failed");
      await network.clock.run(1_000);
      expect(network.requested("recording:offer", ann)).toHaveLength(offers);
    }
  });

  it("is tried once more when it fails, and leaves a line when it is over", async () => {
    const [network, ann, bob] = await called("voice");
    await Promise.all([ann.app.agree({ recording: true }), bob.app.agree({ recording: true }), network.clock.run(1_000)]);
    current(ann).become("failed");
    await network.clock.run(1_000);
    current(ann).become("failed");
    await network.clock.run(1_000);
    expect(network.requested("recording:offer", ann)).toHaveLength(2);
    const over = { conversationId: ann.talk.id, recordingId: "r", outcome: "saved", expiresAt: 1 } as const;
    network.push(network.guestOf(ann), "recording:over", over);
    network.push(network.guestOf(ann), "recording:over", { ...over, recordingId: "s", outcome: "full" });
    await network.clock.run(100);
    expect(ann.talk.calls).toMatchObject([
      { what: "recorded", recordingId: "r" },
      { what: "recording_full", recordingId: null },
    ]);
  });
});
