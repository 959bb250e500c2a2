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

  it("says why and until when it waits, if the address has too many connections", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.refusals.push({ code: "address_full", retryInMs: 5_000 });
    network.cut(ann);
    await network.clock.run(1_000);
    const session = ann.app.session.get();
    const hold = session.phase === "ready" ? session.hold : null;
    expect(hold?.problem).toBe("address_full");
    expect((hold?.retryAt ?? 0) - network.clock.now).toBeGreaterThan(3_000);
    await network.clock.run(10_000);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online", hold: null });
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

describe("a move to another worker", () => {
  /** How the link was shown, from now on. */
  function watched(browser: Browser): string[] {
    const seen = [link(browser)];
    browser.app.session.subscribe(() => {
      if (link(browser) !== seen.at(-1)) seen.push(link(browser));
    });
    return seen;
  }

  /** How the partner was shown, from now on. */
  function presence(browser: Browser): string[] {
    const seen: string[] = [browser.talk.presence];
    browser.app.conversation.subscribe(() => {
      if (browser.talk.presence !== seen.at(-1)) seen.push(browser.talk.presence);
    });
    return seen;
  }

  function move(network: Network, browser: Browser, inMs = 200): void {
    network.push(network.guestOf(browser), "session:move", { inMs });
  }

  // Whether the former line ends before the next one has spoken is chance.
  it.each([
    { displacedAfter: 0, welcomedAfter: 300 },
    { displacedAfter: 300, welcomedAfter: 0 },
  ])("is noticed by nobody, and loses nothing: %o", async (order) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    Object.assign(network, order);
    const [links, seen] = [watched(ann), presence(bob)];
    const said: string[] = [];
    const heard: string[] = [];
    move(network, ann);
    for (let n = 0; n < 40; n += 1) {
      said.push(`ann ${n}`);
      heard.push(`bob ${n}`);
      ann.app.say(`ann ${n}`, null);
      bob.app.say(`bob ${n}`, null);
      await network.clock.run(25);
    }
    await network.clock.run(10_000);
    expect(links).toEqual(["online"]);
    expect(seen).toEqual(["here"]);
    expect(bob.texts.filter((text) => text?.startsWith("ann"))).toEqual(said);
    expect(ann.texts.filter((text) => text?.startsWith("bob"))).toEqual(heard);
    expect(ann.deliveries).not.toContain("failed");
    expect(network.attempts).toHaveLength(3);
  });

  it("leaves no second line behind, also if the server is slow to end the former", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.displacedAfter = 10_000;
    move(network, ann);
    await network.clock.run(3_000);
    expect(network.open(ann)).toBe(1);
    bob.app.say("to the new one", null);
    await network.clock.run(500);
    expect(ann.texts).toEqual(["to the new one"]);
  });

  it("is not another tab, and another tab is told from it afterwards", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.welcomedAfter = 100;
    move(network, ann);
    await network.clock.run(1_000);
    expect(ann.app.session.get().phase).toBe("ready");
    network.push(network.guestOf(ann), "session:replaced", {});
    await network.clock.run(100);
    expect(ann.app.session.get().phase).toBe("replaced");
  });

  it("is not another tab either if the next line breaks once it was taken in", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const links = watched(ann);
    Object.assign(network, { displacedAfter: 200, welcomedAfter: 300 });
    move(network, ann, 100);
    await network.clock.run(220);
    expect(network.attempts).toHaveLength(3);
    // The server took it in, and tells the former line so only now.
    network.cut(ann);
    await network.clock.run(10_000);
    expect(links).not.toContain("replaced");
    expect(links.at(-1)).toBe("online");
    expect(network.open(ann)).toBe(1);
    ann.app.say("still here", null);
    await network.clock.run(500);
    expect(bob.texts).toEqual(["still here"]);
    network.push(network.guestOf(ann), "session:replaced", {});
    await network.clock.run(100);
    expect(link(ann)).toBe("replaced");
  });

  it("tries another worker if it met one of another version, on the former line meanwhile", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    const links = watched(ann);
    network.refusals.push({ code: "stale_client" }, { code: "stale_client" });
    move(network, ann);
    await network.clock.run(6_000);
    expect(network.attempts).toHaveLength(5);
    expect(links).toEqual(["online"]);
  });

  it("waits on the former line while nobody takes it in", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const links = watched(ann);
    network.refusals.push({ code: "busy", retryInMs: 400 }, { code: "busy", retryInMs: 400 }, { code: "busy", retryInMs: 400 });
    move(network, ann);
    await network.clock.run(700);
    ann.app.say("still here", null);
    await network.clock.run(100);
    expect(bob.texts).toEqual(["still here"]);
    await network.clock.run(3_000);
    expect(network.refusals).toEqual([]);
    expect(network.attempts.length).toBe(6);
    expect(links).toEqual(["online"]);
  });

  it("says so if the former line ends and nobody else takes it in, and comes back", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const links = watched(ann);
    move(network, ann, 100);
    await network.clock.run(50);
    network.down = true;
    await network.clock.run(100);
    network.cut(ann);
    await network.clock.run(3_000);
    expect(links).toEqual(["online", "reconnecting"]);
    network.down = false;
    await network.clock.run(6_000);
    expect(links).toEqual(["online", "reconnecting", "online"]);
    ann.app.say("back", null);
    await network.clock.run(500);
    expect(bob.texts).toEqual(["back"]);
  });

  it("does not keep up appearances for long when the next line hangs", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.welcomedAfter = 60_000;
    const links = watched(ann);
    move(network, ann, 100);
    await network.clock.run(1_000);
    expect(links).toEqual(["online"]);
    await network.clock.run(1_000);
    expect(links).toEqual(["online", "reconnecting"]);
    network.welcomedAfter = 0;
    network.dropAll();
    await network.clock.run(3_000);
    expect(links.at(-1)).toBe("online");
  });

  it("answers on the next line what was asked between the two", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.welcomedAfter = 300;
    move(network, ann, 100);
    await network.clock.run(200);
    const asked = ann.app.report({ reason: "spam", words: "", messageIds: [], fileIds: [], block: false });
    await network.clock.run(1_000);
    expect(network.requested("safety:report", ann)).toHaveLength(1);
    expect(await Promise.race([asked, Promise.resolve("still waiting")])).toBe(null);
  });

  it("goes on with a search", async () => {
    const network = new Network();
    const ann = await network.guest();
    void ann.app.find();
    await network.clock.run(100);
    move(network, ann);
    await network.clock.run(1_000);
    expect(ann.app.search.get()).toMatchObject({ phase: "searching", paused: false });
    expect(network.guestOf(ann).searching).toBe(true);
  });

  // The next worker has the guest, and has not said so yet: the former can only refuse, or hangs up before it answers.
  it.each(["refused", "cut off"])("loses no search that was asked in between: %s", async (how) => {
    const network = new Network();
    const ann = await network.guest();
    const [links, phases] = [watched(ann), [] as string[]];
    ann.app.search.subscribe(() => {
      const { phase } = ann.app.search.get();
      if (phase !== phases.at(-1)) phases.push(phase);
    });
    Object.assign(network, { welcomedAfter: 300, displacedAfter: how === "refused" ? 300 : 20 });
    network.refuseFormer = how === "refused";
    move(network, ann, 100);
    await network.clock.run(130);
    expect(network.attempts).toHaveLength(2);
    void ann.app.find();
    await network.clock.run(1_000);
    expect(phases).toEqual(["searching"]);
    expect(ann.app.search.get()).toMatchObject({ phase: "searching", paused: false });
    expect(network.guestOf(ann).searching).toBe(true);
    expect(links).toEqual(["online"]);
  });

  it("takes up no search again that was cancelled in between", async () => {
    const network = new Network();
    const ann = await network.guest();
    Object.assign(network, { welcomedAfter: 300, displacedAfter: 300, refuseFormer: true });
    move(network, ann, 100);
    await network.clock.run(130);
    void ann.app.find();
    await network.clock.run(100);
    void ann.app.cancel();
    await network.clock.run(1_000);
    expect(network.requested("match:cancel", ann)).toHaveLength(1);
    expect(network.guestOf(ann).searching).toBe(false);
    expect(ann.app.search.get()).toMatchObject({ phase: "idle", problem: null });
  });

  it("loses no search either if the next line breaks, and another is found", async () => {
    const network = new Network();
    const ann = await network.guest();
    Object.assign(network, { welcomedAfter: 300, displacedAfter: 10_000, refuseFormer: true });
    move(network, ann, 100);
    await network.clock.run(130);
    void ann.app.find();
    await network.clock.run(100);
    network.welcomedAfter = 0;
    network.cut(ann);
    await network.clock.run(3_000);
    expect(ann.app.search.get()).toMatchObject({ phase: "searching", paused: false });
    expect(network.guestOf(ann).searching).toBe(true);
  });

  it("does not touch a call", async () => {
    const network = new Network();
    const [ann, bob] = await network.pairIn("voice");
    await network.clock.run(3_000);
    const before = network.requested("call:signal").length;
    const phases: (string | undefined)[] = [];
    for (const { app } of [ann, bob]) app.call.subscribe(() => phases.push(app.call.get()?.phase));
    move(network, ann);
    await network.clock.run(100);
    move(network, bob);
    await network.clock.run(5_000);
    expect(network.attempts).toHaveLength(4);
    expect(network.requested("call:signal")).toHaveLength(before);
    expect([...new Set(phases)].filter((phase) => phase !== "live")).toEqual([]);
    expect(ann.devices.peers).toHaveLength(1);
  });
});
