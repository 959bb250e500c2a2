import { describe, expect, it } from "vitest";
import { Network, type Browser } from "./network.fake";

/** Two guests, of whom the first records. */
async function recording(ms: number, network = new Network()): Promise<[Network, Browser, Browser]> {
  const [ann, bob] = await network.pair();
  await Promise.all([ann.app.startVoice(), network.clock.run(100)]);
  // Some of it went into opening the microphone.
  await network.clock.run(ms - 100 + ann.devices.patience);
  return [network, ann, bob];
}

const view = (browser: Browser) => browser.app.voice.get();
const done = (network: Network, action: Promise<unknown>) => Promise.all([action, network.clock.run(100)]);

describe("a voice message", () => {
  it("is recorded, shown as loud as it is, listened to and sent", async () => {
    const [network, ann, bob] = await recording(2_000);
    expect(view(ann)).toMatchObject({ phase: "recording", maxSeconds: 300, url: null, problem: null });
    expect(view(ann).seconds).toBeCloseTo(2, 0);
    expect(view(ann).levels).toHaveLength(20);
    expect(view(ann).levels.every((level) => level === 1)).toBe(true);
    expect(ann.devices.live).toEqual(["mic-1"]);
    expect(ann.devices.recorded[0]?.types).toEqual(["audio/webm;codecs=opus", "audio/mp4"]);
    await done(network, ann.app.stopVoice());
    expect(ann.devices.live).toEqual([]);
    expect(view(ann)).toMatchObject({ phase: "preview", seconds: 2 });
    expect(view(ann).levels).toHaveLength(20);
    expect(ann.urls.get(view(ann).url ?? "")?.type).toBe("audio/webm;codecs=opus");
    await done(network, ann.app.sendVoice());
    expect(view(ann)).toMatchObject({ phase: "idle", url: null, levels: [] });
    expect(ann.urls.size).toBe(0);
    expect(ann.app.uploads.get()).toMatchObject([{ kind: "voice", seconds: 2, name: "voice-message.webm", preview: null }]);
    await network.clock.run(5_000);
    expect(network.files.all[0]?.asked).toMatchObject({ voice: true, name: "voice-message.webm" });
    expect(bob.talk.messages).toMatchObject([{ text: "", file: { kind: "voice" } }]);
  });

  it("is sent at once from the recording", async () => {
    const [network, ann, bob] = await recording(2_000);
    await done(network, ann.app.sendVoice());
    expect(view(ann).phase).toBe("idle");
    expect(ann.devices.live).toEqual([]);
    await network.clock.run(5_000);
    expect(bob.talk.messages).toMatchObject([{ file: { kind: "voice" } }]);
  });

  it("does not wait for files that get nowhere, and answers a message", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.app.say("how do you sound?", null);
    await network.clock.run(200);
    network.files.stumbles.push("stuck", "stuck");
    ann.app.share(["1", "2", "3"].map((name) => ({ file: new File(["x".repeat(4_000)], name), text: "" })));
    await network.clock.run(1_000);
    await Promise.all([ann.app.startVoice(), network.clock.run(2_000)]);
    let sent: boolean | null = null;
    void ann.app.sendVoice(ann.talk.messages[0]?.id).then((now) => {
      sent = now;
    });
    await network.clock.run(6_000);
    expect(sent).toBe(true);
    expect(bob.talk.messages.at(-1)).toMatchObject({ file: { kind: "voice" }, replyTo: { text: "how do you sound?" } });
    expect(ann.app.uploads.get()).toHaveLength(3);
  });

  it("is there to be heard, and no microphone open, once the page is hidden", async () => {
    const [network, ann] = await recording(2_000);
    ann.hide();
    await network.clock.run(100);
    expect(view(ann)).toMatchObject({ phase: "preview", seconds: 2 });
    expect(ann.devices.live).toEqual([]);
    ann.hide();
    await network.clock.run(100);
    expect(view(ann).phase).toBe("preview");
  });

  it("of less than half a second is nothing", async () => {
    const [network, ann] = await recording(400);
    await done(network, ann.app.stopVoice());
    expect(view(ann)).toMatchObject({ phase: "idle", problem: null });
    expect(ann.devices.live).toEqual([]);
    await Promise.all([ann.app.startVoice(), network.clock.run(300)]);
    const [sent] = await Promise.all([ann.app.sendVoice(), network.clock.run(100)]);
    expect(sent).toBe(false);
    expect(view(ann).phase).toBe("idle");
    expect(ann.app.uploads.get()).toEqual([]);
  });

  it("ends by itself after five minutes, to be listened to", async () => {
    const [, ann] = await recording(400_000);
    expect(view(ann)).toMatchObject({ phase: "preview", seconds: 300 });
    expect(ann.devices.live).toEqual([]);
  });

  it("is thrown away when it is cancelled, in any phase", async () => {
    const [network, ann] = await recording(2_000);
    ann.app.cancelVoice();
    expect(view(ann).phase).toBe("idle");
    await network.clock.run(100);
    expect(ann.devices.live).toEqual([]);
    await Promise.all([ann.app.startVoice(), network.clock.run(2_000)]);
    await done(network, ann.app.stopVoice());
    ann.app.cancelVoice();
    expect(ann.urls.size).toBe(0);
    ann.devices.patience = 5_000;
    void ann.app.startVoice();
    await network.clock.run(1_000);
    expect(view(ann).phase).toBe("asking");
    await done(network, ann.app.stopVoice());
    expect(view(ann).phase).toBe("idle");
    await network.clock.run(10_000);
    expect(view(ann).phase).toBe("idle");
    expect(ann.devices.live).toEqual([]);
  });

  it.each([
    ["NotAllowedError", "denied", "denied"],
    ["NotAllowedError", "prompt", "dismissed"],
    ["NotFoundError", null, "none"],
    ["NotReadableError", null, "busy"],
  ] as const)("says why there is none after %s (%s)", async (name, permission, problem) => {
    const network = new Network();
    const [ann] = await network.pair();
    ann.devices.errors.microphone = name;
    ann.devices.permission = permission;
    await done(network, ann.app.startVoice());
    expect(view(ann)).toMatchObject({ phase: "idle", problem });
    delete ann.devices.errors.microphone;
    await done(network, ann.app.startVoice());
    expect(view(ann)).toMatchObject({ phase: "recording", problem: null });
  });

  it("says that the browser cannot record, and that the part for it is missing", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    ann.parts = false;
    await done(network, ann.app.startVoice());
    expect(view(ann)).toMatchObject({ phase: "idle", problem: "failed" });
    ann.parts = true;
    ann.devices.canRecord = false;
    await done(network, ann.app.startVoice());
    expect(view(ann)).toMatchObject({ phase: "idle", problem: "unsupported" });
    expect(ann.devices.live).toEqual([]);
  });

  it("goes to the preview when the microphone is unplugged", async () => {
    const [network, ann] = await recording(2_000);
    ann.devices.opened.at(-1)?.unplug();
    await network.clock.run(100);
    expect(view(ann)).toMatchObject({ phase: "preview" });
  });

  it("is recorded with the microphone that was chosen", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    await done(network, ann.app.chooseDevice("microphone", "mic-2"));
    await done(network, ann.app.startVoice());
    expect(ann.devices.live).toEqual(["mic-2"]);
  });

  it.each([
    ["the conversation ends", (_: Browser, bob: Browser) => bob.app.leave()],
    ["one leaves", (ann: Browser) => ann.app.leave()],
  ])("lets go of the microphone when %s", async (_, act) => {
    const [network, ann, bob] = await recording(2_000);
    await done(network, act(ann, bob));
    expect(view(ann).phase).toBe("idle");
    expect(ann.devices.live).toEqual([]);
    await done(network, ann.app.startVoice());
    expect(view(ann).phase).toBe("idle");
  });
});

describe("during a call", () => {
  it.each([
    ["heard", true],
    ["muted", false],
  ])("it shares the microphone, %s or not, and leaves it to the call", async (_, on) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([ann.app.invite("voice"), network.clock.run(500)]);
    await Promise.all([bob.app.accept("voice"), network.clock.run(500)]);
    await done(network, ann.app.setMicrophone(on));
    const [mine] = ann.devices.opened;
    await Promise.all([ann.app.startVoice(), network.clock.run(2_000)]);
    expect(ann.devices.opened).toHaveLength(1);
    expect(ann.devices.recorded[0]?.track).toMatchObject({ enabled: true, readyState: "live" });
    expect(mine).toMatchObject({ enabled: on, readyState: "live" });
    await done(network, ann.app.sendVoice());
    expect(ann.devices.recorded[0]?.track.readyState).toBe("ended");
    expect(mine).toMatchObject({ enabled: on, readyState: "live" });
    expect(ann.call.phase).toBe("live");
    await Promise.all([ann.app.endCall(), network.clock.run(500)]);
    expect(ann.devices.live).toEqual([]);
  });
});
