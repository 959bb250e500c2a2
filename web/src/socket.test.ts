import { describe, expect, it } from "vitest";
import { Network, type Browser } from "./network.fake";

function link(browser: Browser) {
  const view = browser.app.session.get();
  return view.phase === "ready" ? view.link : view.phase;
}

describe("the connection", () => {
  it("presents the token and the contract it was built for", async () => {
    const network = new Network();
    const ann = await network.guest();
    expect(network.attempts[0]?.auth).toMatchObject({ token: ann.token, contract: expect.any(String) as string });
  });

  it("comes back with growing, jittered patience, never above five seconds", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.down = true;
    network.cut(ann);
    const from = network.attempts.length;
    await network.clock.run(60_000);
    const at = network.attempts.slice(from).map((attempt) => attempt.at);
    const gaps = at.slice(1).map((time, index) => time - (at[index] ?? 0));
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(300);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(5_100);
    expect(gaps.at(-1)).toBeGreaterThan(gaps[0] ?? 0);
    network.down = false;
    await network.clock.run(6_000);
    expect(link(ann)).toBe("online");
  });

  it("waits as long as a busy server asks", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.refusals.push({ code: "busy", retryInMs: 20_000 });
    network.cut(ann);
    await network.clock.run(1_000);
    const attempts = network.attempts.length;
    await network.clock.run(18_000);
    expect(network.attempts).toHaveLength(attempts);
    await network.clock.run(15_000);
    expect(link(ann)).toBe("online");
  });

  it("comes back at once when the device has its network again, even over a socket that looks alive", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.setOnline(false);
    ann.app.say("from the tunnel", null);
    await network.clock.run(3_000);
    expect(link(ann)).toBe("online");
    ann.setOnline(true);
    await network.clock.run(50);
    expect(link(ann)).toBe("online");
    await network.clock.run(100);
    expect(bob.texts).toEqual(["from the tunnel"]);
  });

  it("finds out that it died while the page slept", async () => {
    const network = new Network();
    const ann = await network.guest();
    ann.hide();
    await network.clock.run(60_000);
    network.mute(ann);
    ann.show();
    const attempts = network.attempts.length;
    await network.clock.run(2_600);
    expect(network.attempts).toHaveLength(attempts + 1);
    expect(link(ann)).toBe("online");
  });

  it("says that the device is offline once nothing answers, and comes back at once afterwards", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.setOnline(false);
    ann.app.say("from a long tunnel", null);
    await network.clock.run(20_000);
    expect(link(ann)).toBe("offline");
    ann.setOnline(true);
    await network.clock.run(150);
    expect(link(ann)).toBe("online");
    expect(bob.texts).toEqual(["from a long tunnel"]);
  });

  it("leaves nobody waiting for an answer that cannot come any more", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.weather = { ...network.weather, slowest: 2_000, fastest: 2_000 };
    const asked = ann.app.block();
    await network.clock.run(100);
    network.cut(ann);
    await network.clock.run(1);
    const answer = await Promise.race([asked, Promise.resolve("still waiting")]);
    expect(answer).toBe("unreachable");
  });

  it("does not wait when somebody comes back to the page", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.down = true;
    network.cut(ann);
    await network.clock.run(60_000);
    network.down = false;
    ann.show();
    await network.clock.run(50);
    expect(link(ann)).toBe("online");
  });
});
