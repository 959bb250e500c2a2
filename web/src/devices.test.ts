import { describe, expect, it } from "vitest";
import { Browser, Network } from "./network.fake";

async function looking(what: "voice" | "video", prepare: (browser: Browser) => void = () => undefined) {
  const network = new Network();
  const ann = await network.guest();
  prepare(ann);
  await Promise.all([ann.app.openDevices(what), network.clock.run(500)]);
  return { network, ann, view: () => ann.app.devices.get() };
}

describe("a look before joining", () => {
  it("opens what is switched on with one question, shows the camera and how loud it is", async () => {
    const { ann, view, network } = await looking("video");
    expect(ann.devices.asked).toHaveLength(1);
    expect(view()).toMatchObject({ microphone: "mic-1", camera: "cam-1", opening: false, microphoneProblem: null });
    expect(view().microphones.map(({ label }) => label)).toEqual(["First microphone", "Second microphone"]);
    expect(view().preview).not.toBeNull();
    expect(ann.app.level.get()).toBeGreaterThan(0);
    ann.app.closeDevices();
    await network.clock.run(100);
    expect(ann.devices.live).toEqual([]);
    expect(view().preview).toBeNull();
    expect(ann.app.level.get()).toBe(0);
  });

  it("leaves off what is switched off, and remembers that", async () => {
    const { ann, network } = await looking("video", ({ app }) => void app.setCamera(false));
    expect(ann.devices.live).toEqual(["mic-1"]);
    const later = new Browser(network, ann.local);
    later.open();
    expect(later.app.devices.get()).toMatchObject({ cameraOn: false, microphoneOn: true });
  });

  it.each([
    ["NotAllowedError", "denied", "denied"],
    ["NotAllowedError", "prompt", "dismissed"],
    ["NotReadableError", "granted", "busy"],
    ["AbortError", "granted", "busy"],
    ["NotFoundError", "granted", "none"],
    ["OverconstrainedError", "granted", "none"],
    ["TypeError", "granted", "failed"],
  ] as const)("says why there is no camera: %s while %s is %s", async (error, permission, problem) => {
    const { view, ann } = await looking("video", ({ devices }) => {
      devices.errors.camera = error;
      devices.permission = permission;
    });
    expect(view().cameraProblem).toBe(problem);
    if (problem !== "dismissed") expect(ann.devices.live).toEqual(["mic-1"]);
  });

  it("says that the page itself cannot have any", async () => {
    const network = new Network();
    const ann = await network.guest();
    ann.devices.missing = "insecure";
    ann.reload();
    await Promise.all([ann.app.openDevices("video"), network.clock.run(500)]);
    expect(ann.app.devices.get()).toMatchObject({ microphoneProblem: "insecure", cameraProblem: "insecure", opening: false });
    expect(ann.devices.asked).toEqual([]);
  });
});

describe("devices", () => {
  it("take another microphone when one is chosen, also next time", async () => {
    const { ann, view, network } = await looking("voice");
    await Promise.all([ann.app.chooseDevice("microphone", "mic-2"), network.clock.run(500)]);
    expect(view().microphone).toBe("mic-2");
    expect(ann.devices.live).toEqual(["mic-2"]);
    const later = new Browser(network, ann.local);
    later.open();
    expect(later.app.devices.get().microphone).toBe("mic-2");
  });

  it("fall back to the default when one is unplugged, and say so", async () => {
    const { ann, view, network } = await looking("voice");
    ann.devices.all.shift();
    ann.devices.change();
    await network.clock.run(500);
    expect(view()).toMatchObject({ microphone: "mic-2", swapped: "microphone" });
    expect(ann.devices.live).toEqual(["mic-2"]);
  });

  it("show one that is plugged in, and use it where there was none", async () => {
    const { ann, view, network } = await looking("video", ({ devices }) => {
      devices.all.pop();
    });
    expect(view()).toMatchObject({ cameraProblem: "none", cameras: [] });
    ann.devices.all.push({ kind: "videoinput", deviceId: "cam-2", label: "New camera" });
    ann.devices.change();
    await network.clock.run(500);
    expect(view()).toMatchObject({ cameraProblem: null, camera: "cam-2", cameras: [{ id: "cam-2" }] });
  });
});
