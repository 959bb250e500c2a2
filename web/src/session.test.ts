import { describe, expect, it } from "vitest";
import { CONTRACT } from "./contract.gen";
import { Browser, Network } from "./network.fake";

describe("a first visit", () => {
  it("asks for age and rules, and enters with the answers", async () => {
    const network = new Network();
    const browser = new Browser(network);
    browser.open();
    expect(browser.app.session.get().phase).toBe("loading");
    await network.clock.run(100);
    expect(browser.app.session.get()).toEqual({
      phase: "welcome",
      needs: { birthDate: true, rules: true },
      minimumAge: 18,
      busy: false,
      problem: null,
    });
    void browser.app.enter({ birthDate: "1990-02-03", acceptRules: true });
    expect(browser.app.session.get()).toMatchObject({ busy: true });
    await network.clock.run(100);
    expect(browser.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
    expect(network.posts).toEqual([{ birthDate: "1990-02-03", rules: 1, device: null }]);
  });

  it("asks nothing twice: the next tab of the same browser is a guest at once, and another one", async () => {
    const network = new Network();
    const first = new Browser(network);
    first.open();
    await network.clock.run(100);
    void first.app.enter({ birthDate: "1990-02-03", acceptRules: true });
    await network.clock.run(100);
    const second = new Browser(network, first.local);
    second.open();
    await network.clock.run(100);
    expect(second.app.session.get().phase).toBe("ready");
    expect(second.token).not.toBe(first.token);
    expect(first.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
  });

  it("says what is missing", async () => {
    const network = new Network();
    const browser = new Browser(network);
    browser.open();
    await network.clock.run(100);
    void browser.app.enter({ birthDate: "1990-02-03", acceptRules: false });
    await network.clock.run(100);
    expect(browser.app.session.get()).toMatchObject({ phase: "welcome", busy: false, problem: "rules_not_accepted" });
  });

  it("asks for new house rules only, of somebody known", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.rules = 2;
    const tab = new Browser(network, ann.local);
    tab.open();
    await network.clock.run(100);
    expect(tab.app.session.get()).toMatchObject({ phase: "welcome", needs: { birthDate: false, rules: true } });
    void tab.app.enter({ birthDate: null, acceptRules: true });
    await network.clock.run(100);
    expect(tab.app.session.get().phase).toBe("ready");
  });

  it("keeps its no to somebody under age, in every tab and after a reload", async () => {
    const network = new Network();
    const browser = new Browser(network);
    browser.open();
    await network.clock.run(100);
    void browser.app.enter({ birthDate: "2020-01-01", acceptRules: true });
    await network.clock.run(100);
    expect(browser.app.session.get()).toEqual({ phase: "underAge", minimumAge: 18 });
    const tab = new Browser(network, browser.local);
    tab.open();
    await network.clock.run(100);
    expect(tab.app.session.get().phase).toBe("underAge");
    expect(network.posts).toHaveLength(1);
  });

  it("asks again when the server no longer knows what the browser remembers", async () => {
    const network = new Network();
    const browser = new Browser(network);
    browser.local.items.set("visavis.device", JSON.stringify("of other times"));
    browser.open();
    await network.clock.run(100);
    expect(browser.app.session.get()).toMatchObject({ phase: "welcome", needs: { birthDate: true, rules: true } });
  });

  it("tries again by itself while nobody answers", async () => {
    const network = new Network();
    network.down = true;
    const browser = new Browser(network);
    browser.open();
    await network.clock.run(100);
    const view = browser.app.session.get();
    expect(view).toMatchObject({ phase: "failed", problem: "unreachable" });
    expect(view.phase === "failed" && view.retryAt).toBeGreaterThan(network.clock.now);
    network.down = false;
    await network.clock.run(3_000);
    expect(browser.app.session.get().phase).toBe("welcome");
  });
});

describe("a session", () => {
  it("survives a reload as the same guest", async () => {
    const network = new Network();
    const ann = await network.guest();
    const { token } = ann;
    ann.reload();
    await network.clock.run(100);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
    expect(ann.token).toBe(token);
    expect(network.posts).toHaveLength(1);
  });

  it("is renewed at half of its life", async () => {
    const network = new Network();
    const ann = await network.guest();
    await network.clock.run(3_500_000);
    expect(network.requested("session:refresh", ann)).toHaveLength(0);
    await network.clock.run(200_000);
    expect(network.requested("session:refresh", ann)).toHaveLength(1);
  });

  it("that ended becomes a new guest without a question, and the old conversation is lost", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.guests.delete(ann.token);
    const before = ann.token;
    network.dropAll();
    await network.clock.run(2_000);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
    expect(ann.token).not.toBe(before);
    expect(ann.talk.ended).toBe("missed");
    expect(network.attempts.find(({ auth }) => auth.token === ann.token)?.auth.claim).toBeNull();
  });

  it("does not ask for guests in a tight loop when the server takes none of them", async () => {
    const network = new Network();
    for (let count = 0; count < 100; count += 1) network.refusals.push({ code: "session_expired" });
    const ann = await network.guest();
    await network.clock.run(20_000);
    expect(ann.app.session.get()).toMatchObject({ phase: "failed", problem: "session_expired" });
    expect(network.posts.length).toBeLessThan(8);
  });

  it("that ended asks nothing again even where the browser keeps nothing", async () => {
    const network = new Network();
    const browser = new Browser(network);
    browser.local.room = 0;
    browser.session.room = 0;
    browser.open();
    await network.clock.run(100);
    void browser.app.enter({ birthDate: "1990-02-03", acceptRules: true });
    await network.clock.run(100);
    network.guests.clear();
    network.dropAll();
    await network.clock.run(2_000);
    expect(browser.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
  });

  it("gives a duplicated tab a guest of its own", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    const copy = new Browser(network, ann.local);
    for (const [key, value] of ann.session.items) copy.session.items.set(key, value);
    copy.taken.add(JSON.parse(ann.session.items.get("visavis.tab") ?? "") as string);
    copy.open();
    await network.clock.run(1_000);
    expect(copy.token).not.toBe(ann.token);
    expect(copy.app.conversation.get()).toBeNull();
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
    expect(ann.talk.ended).toBeNull();
  });

  it("stays away once it was opened elsewhere, until it is taken back", async () => {
    const network = new Network();
    const ann = await network.guest();
    const elsewhere = new Browser(network, ann.local);
    for (const [key, value] of ann.session.items) elsewhere.session.items.set(key, value);
    elsewhere.open();
    await network.clock.run(30_000);
    expect(ann.app.session.get()).toEqual({ phase: "replaced" });
    expect(elsewhere.app.session.get()).toMatchObject({ link: "online" });
    ann.app.takeBack();
    await network.clock.run(1_000);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
    expect(elsewhere.app.session.get()).toEqual({ phase: "replaced" });
  });

  it("moves to another worker when told to, in the middle of a conversation", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.push(network.guestOf(ann), "session:move", { inMs: 500 });
    await network.clock.run(400);
    const attempts = network.attempts.length;
    await network.clock.run(300);
    expect(network.attempts).toHaveLength(attempts + 1);
    ann.app.say("still here", null);
    await network.clock.run(200);
    expect(bob.texts).toEqual(["still here"]);
  });
});

describe("an update that changes the contract", () => {
  /** Lets time pass as a browser would that reloads when it is told to; these files are the same each time. */
  async function run(network: Network, browser: Browser, seconds: number): Promise<void> {
    let { reloads } = browser;
    for (let second = 0; second < seconds; second += 1) {
      await network.clock.run(1_000);
      if (browser.reloads > reloads) browser.reload();
      ({ reloads } = browser);
    }
  }

  async function talkOn(network: Network, from: Browser, to: Browser): Promise<void> {
    from.app.say("and so on", null);
    await network.clock.run(1_000);
    expect(to.texts.at(-1)).toBe("and so on");
  }

  it("has a page reload, and says that nothing has to be done while that does not help", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.contracts = ["newer"];
    network.cut(ann);
    await run(network, ann, 20);
    expect(ann.reloads).toBe(1);
    const session = ann.app.session.get();
    expect(session).toMatchObject({ phase: "ready", link: "reconnecting", hold: { problem: "stale_client" } });
    const again = session.phase === "ready" ? (session.hold?.retryAt ?? 0) - network.clock.now : 0;
    expect(again).toBeGreaterThan(0);
    expect(again).toBeLessThanOrEqual(10_000);
    expect(ann.talk.ended).toBeNull();
  });

  it("that begins with the page: it waits for the first worker of its own, and the conversation goes on", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.contracts = ["older", "older", "older"];
    network.cut(ann);
    await run(network, ann, 25);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "reconnecting" });
    network.contracts = [CONTRACT, "older", "older"];
    await run(network, ann, 60);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online", hold: null });
    await talkOn(network, ann, bob);
  });

  it("that begins with the workers: it finds one that is not restarted yet, and the conversation goes on", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.contracts = [CONTRACT, "newer", "newer"];
    network.cut(ann);
    await run(network, ann, 60);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online", hold: null });
    await talkOn(network, ann, bob);
  });

  it("that begins with the workers: it asks for its files again in a while, for as long as they are the old ones", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.contracts = ["newer", "newer", "newer"];
    network.cut(ann);
    const from = network.attempts.length;
    await run(network, ann, 300);
    expect(ann.reloads).toBeGreaterThan(4);
    expect(ann.reloads).toBeLessThanOrEqual(11);
    expect(network.attempts.length - from).toBeLessThan(75);
    // The files have come: what the page speaks is what they all speak.
    network.contracts = [CONTRACT];
    await run(network, ann, 12);
    await talkOn(network, ann, bob);
  });

  it("does not reload where a worker speaks as the page does", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.refusals.push({ code: "stale_client" }, { code: "stale_client" });
    network.cut(ann);
    await run(network, ann, 30);
    expect(ann.reloads).toBe(0);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online", hold: null });
  });

  it("never reloads where the browser would not remember it", async () => {
    const network = new Network();
    const ann = await network.guest();
    ann.session.room = 0;
    network.contracts = ["newer"];
    network.cut(ann);
    await run(network, ann, 60);
    expect(ann.reloads).toBe(0);
    network.contracts = [CONTRACT];
    await run(network, ann, 12);
    expect(ann.app.session.get()).toMatchObject({ phase: "ready", link: "online" });
  });

  it("costs a first visit one reload, and then it is let in by who can", async () => {
    const network = new Network();
    network.contracts = ["older"];
    const browser = new Browser(network);
    browser.open();
    await run(network, browser, 20);
    expect(browser.reloads).toBe(1);
    void browser.app.enter({ birthDate: "1990-02-03", acceptRules: true });
    network.contracts = ["older", CONTRACT];
    await run(network, browser, 60);
    expect(browser.app.session.get()).toMatchObject({ phase: "ready", link: "online", hold: null });
  });
});
