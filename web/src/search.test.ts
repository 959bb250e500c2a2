import { describe, expect, it } from "vitest";
import { Network, type Browser } from "./network.fake";

function searching(browser: Browser) {
  const view = browser.app.search.get();
  if (view.phase !== "searching") throw new Error(`not searching: ${view.problem}`);
  return view;
}

describe("a search", () => {
  it("asks for what the guest chose and says whom it accepts as it widens", async () => {
    const network = new Network();
    const ann = await network.guest();
    ann.app.addInterest("  Jazz ");
    const since = network.clock.now;
    void ann.app.find();
    await network.clock.run(100);
    expect(network.requested("match:find", ann)).toEqual([
      { mode: "text", interests: ["jazz"], languages: ["en", "pt"] },
    ]);
    expect(searching(ann)).toMatchObject({ since, accepts: "interests", interests: ["jazz"], paused: false });
    await network.clock.run(5_000);
    expect(searching(ann).accepts).toBe("anyone");
  });

  it("ends with a stranger on both sides", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    expect(ann.talk.id).toBe(bob.talk.id);
    expect(ann.app.search.get()).toEqual({ phase: "idle", problem: null });
  });

  it("says that nobody else is here, and when somebody comes", async () => {
    const network = new Network();
    const ann = await network.guest();
    void ann.app.find();
    await network.clock.run(100);
    expect(searching(ann).alone).toBe(true);
    network.online = 2;
    network.push(network.guestOf(ann), "lobby:state", network.lobby());
    await network.clock.run(100);
    expect(searching(ann).alone).toBe(false);
  });

  it("is asked for again after a reconnect, because the server has forgotten it", async () => {
    const network = new Network();
    const ann = await network.guest();
    void ann.app.find();
    await network.clock.run(100);
    const { since } = searching(ann);
    network.cut(ann);
    expect(searching(ann).paused).toBe(true);
    await network.clock.run(1_000);
    expect(searching(ann)).toMatchObject({ paused: false, since });
    const bob = await network.guest();
    void bob.app.find();
    await network.clock.run(1_000);
    expect(ann.talk.id).toBe(bob.talk.id);
  });

  it("goes on after a reload, but not in a copy of the tab or when the tab is opened another day", async () => {
    const network = new Network();
    const ann = await network.guest();
    void ann.app.find();
    await network.clock.run(40_000);
    const { since } = searching(ann);
    ann.hide();
    ann.reload();
    expect(searching(ann).since).toBe(since);
    ann.taken.add(JSON.parse(ann.session.items.get("visavis.tab") ?? "") as string);
    ann.reload();
    await network.clock.run(1_000);
    expect(ann.app.search.get().phase).toBe("idle");
    void ann.app.find();
    await network.clock.run(1_000);
    ann.taken.clear();
    ann.crash();
    await network.clock.run(24 * 3_600_000);
    ann.open();
    expect(ann.app.search.get().phase).toBe("idle");
  });

  it("finds somebody after a reload", async () => {
    const network = new Network();
    const [ann, bob] = [await network.guest(), await network.guest()];
    void ann.app.find();
    await network.clock.run(100);
    ann.reload();
    await network.clock.run(1_000);
    void bob.app.find();
    await network.clock.run(1_000);
    expect(ann.talk.id).toBe(bob.talk.id);
  });

  it("stops when cancelled: nobody meets a guest who has given up", async () => {
    const network = new Network();
    const [ann, bob] = [await network.guest(), await network.guest()];
    void ann.app.find();
    await network.clock.run(100);
    await Promise.all([ann.app.cancel(), network.clock.run(100)]);
    void bob.app.find();
    await network.clock.run(1_000);
    expect(bob.app.conversation.get()).toBeNull();
    expect(ann.app.search.get()).toEqual({ phase: "idle", problem: null });
  });

  it("does not draw somebody into a conversation found in the instant of cancelling", async () => {
    const network = new Network();
    const [ann, bob] = [await network.guest(), await network.guest()];
    void ann.app.find();
    void bob.app.find();
    await network.clock.run(15);
    void ann.app.cancel();
    await network.clock.run(1_000);
    expect(ann.app.conversation.get()).toBeNull();
    expect(bob.talk.ended).toBe("left");
  });

  it("waits as long as a refusal asks, and gives up with the reason when it is final", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.answerNext = { event: "match:find", answer: { error: { code: "rate_limited", retryInMs: 3_000 } } };
    void ann.app.find();
    await network.clock.run(2_900);
    expect(searching(ann).paused).toBe(true);
    await network.clock.run(300);
    expect(searching(ann).paused).toBe(false);
    await Promise.all([ann.app.cancel(), network.clock.run(100)]);
    network.answerNext = { event: "match:find", answer: { error: { code: "mode_unavailable" } } };
    void ann.app.find();
    await network.clock.run(100);
    expect(ann.app.search.get()).toEqual({ phase: "idle", problem: "mode_unavailable" });
  });

  it("finds out about a seat it did not know of", async () => {
    const network = new Network();
    const [ann, bob] = [await network.guest(), await network.guest()];
    network.swallow = { event: "match:found", count: 1 };
    void ann.app.find();
    void bob.app.find();
    await network.clock.run(1_000);
    await Promise.all([ann.app.cancel(), network.clock.run(100)]);
    void ann.app.find();
    await network.clock.run(2_000);
    expect(ann.talk.id).toBe(bob.talk.id);
  });
});

describe("skipping", () => {
  it("leaves one stranger and looks for the next at once", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const first = bob.talk.id;
    void ann.app.skip();
    expect(ann.app.search.get().phase).toBe("searching");
    expect(ann.app.conversation.get()).toBeNull();
    await network.clock.run(500);
    expect(bob.talk.ended).toBe("left");
    const cleo = await network.guest();
    void cleo.app.find();
    await network.clock.run(1_000);
    expect(ann.talk.id).toBe(cleo.talk.id);
    expect(ann.talk.id).not.toBe(first);
    expect(ann.texts).toEqual([]);
  });

  it("works without a network: the stranger is left and the next one met when it is back", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.down = true;
    network.cut(ann);
    void ann.app.skip();
    await network.clock.run(1_000);
    expect(searching(ann).paused).toBe(true);
    network.down = false;
    await network.clock.run(10_000);
    expect(bob.talk.ended).toBe("left");
    void bob.app.find();
    await network.clock.run(1_000);
    expect(ann.talk.id).toBe(bob.talk.id);
    expect(ann.talk.ended).toBeNull();
  });

  it("leaves again if nobody answered the first time, before it looks for the next one", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.answerNext = { event: "conversation:leave", answer: { error: { code: "unavailable", retryInMs: 500 } } };
    const attempts = network.attempts.length;
    void ann.app.skip();
    await network.clock.run(1_000);
    expect(bob.talk.ended).toBe("left");
    expect(searching(ann).paused).toBe(false);
    expect(network.attempts).toHaveLength(attempts);
  });

  it("goes on from a conversation that has already ended", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    await Promise.all([bob.app.leave(), network.clock.run(200)]);
    void ann.app.find();
    void bob.app.skip();
    await network.clock.run(1_000);
    expect(ann.talk).toMatchObject({ id: bob.talk.id, ended: null });
  });
});
