import { describe, expect, it } from "vitest";
import { CALM, Network, STORM, type Browser } from "./network.fake";

/** Everything that one side shows as delivered stands on the other side, once and in order. */
function checkPromise(sender: Browser, receiver: Browser): void {
  const received = receiver.talk.messages.filter((message) => !message.mine).map((message) => message.text);
  const sent = sender.talk.messages.filter((message) => message.mine);
  expect(received).toEqual(sent.slice(0, received.length).map((message) => message.text));
  for (const [index, message] of sent.entries()) {
    if (message.delivery === "delivered" || message.delivery === "read") expect(received[index]).toBe(message.text);
  }
}

async function liveThroughAStorm(seed: number): Promise<void> {
  const network = new Network(seed);
  const both = await network.pair();
  const chance = (share: number) => network.random() < share;
  network.weather = STORM;
  let said = 0;
  for (let step = 0; step < 150; step += 1) {
    for (const [index, browser] of both.entries()) {
      for (let burst = chance(0.05) ? 20 : chance(0.3) ? 1 : 0; burst > 0; burst -= 1) {
        said += 1;
        expect(browser.app.say(`${index} says ${said}`, null)).toBe(true);
      }
      if (chance(0.03)) network.cut(browser);
      if (chance(0.02)) browser.reload();
      if (chance(0.03)) browser.setOnline(!browser.online);
      if (chance(0.1)) browser.app.setWatching(chance(0.5));
    }
    await network.clock.run(400 * network.random());
    checkPromise(both[0], both[1]);
    checkPromise(both[1], both[0]);
  }
  network.weather = CALM;
  for (const browser of both) {
    browser.setOnline(true);
    browser.app.setWatching(true);
  }
  await network.clock.run(60_000);
  const expected = (mine: boolean) => both.map((browser) => browser.talk.messages.filter((one) => one.mine === mine));
  const [saidByOne, saidByOther] = expected(true);
  const [heardByOne, heardByOther] = expected(false);
  expect((saidByOne?.length ?? 0) + (saidByOther?.length ?? 0)).toBe(said);
  expect(heardByOther?.map((one) => one.text)).toEqual(saidByOne?.map((one) => one.text));
  expect(heardByOne?.map((one) => one.text)).toEqual(saidByOther?.map((one) => one.text));
  for (const browser of both) {
    expect(new Set(browser.deliveries)).toEqual(new Set(["read"]));
    expect(browser.talk.unread).toBe(0);
  }
}

describe("delivery through losses, repeats, reordering, refusals, cuts and reloads", () => {
  // One test for each stretch of seeds, so that a failure names a short list.
  for (let first = 0; first < 60; first += 10) {
    it(`keeps every promise with seeds ${first + 1} to ${first + 10}`, { timeout: 60_000 }, async () => {
      for (let seed = first + 1; seed <= first + 10; seed += 1) {
        await liveThroughAStorm(seed).catch((error: unknown) => {
          throw new Error(`seed ${seed}`, { cause: error });
        });
      }
    });
  }
});

describe("sending", () => {
  it("says again what was accepted and never arrived, after four seconds of silence", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    losePushes(network, 1);
    ann.app.say("hello", null);
    await network.clock.run(3_900);
    expect(ann.deliveries).toEqual(["sent"]);
    expect(bob.texts).toEqual([]);
    await network.clock.run(300);
    expect(bob.texts).toEqual(["hello"]);
    expect(ann.deliveries).toEqual(["delivered"]);
  });

  it("waits longer after each silence in a row", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    losePushes(network, Infinity);
    const start = network.clock.now;
    ann.app.say("hello", null);
    await network.clock.run(63_000);
    const sentAt = network.sentAt("chat:message", ann).map((at) => Math.round((at - start) / 1_000));
    expect(sentAt).toEqual([0, 4, 12, 28, 58]);
  });

  it("says everything undelivered again, in order, the moment the partner is back", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.crash();
    await network.clock.run(100);
    for (const text of ["one", "two", "three"]) ann.app.say(text, null);
    await network.clock.run(10_000);
    expect(ann.talk.presence).toBe("away");
    expect(ann.deliveries).toEqual(["sent", "sent", "sent"]);
    bob.open();
    await network.clock.run(200);
    expect(bob.texts).toEqual(["one", "two", "three"]);
    expect(ann.deliveries).toEqual(["delivered", "delivered", "delivered"]);
  });

  it("says everything undelivered again as soon as it is back itself", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    losePushes(network, 2);
    ann.app.say("one", null);
    ann.app.say("two", null);
    await network.clock.run(100);
    network.cut(ann);
    await network.clock.run(1_000);
    expect(bob.texts).toEqual(["one", "two"]);
    expect(network.requested("chat:message", ann).map((request) => request.seq)).toEqual([1, 2, 1, 2]);
  });

  it("obeys the time a refusal names, and nothing is shown out of order", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.answerNext = { event: "chat:message", answer: { error: { code: "rate_limited", retryInMs: 700 } } };
    ann.app.say("first", null);
    ann.app.say("second", null);
    await network.clock.run(690);
    expect(bob.texts).toEqual([]);
    expect(network.requested("chat:message", ann)).toHaveLength(2);
    await network.clock.run(200);
    expect(bob.texts).toEqual(["first", "second"]);
    expect(ann.deliveries).toEqual(["delivered", "delivered"]);
  });

  it("says until when messages wait, and does not call them failed meanwhile", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.answerNext = { event: "chat:message", answer: { error: { code: "rate_limited", retryInMs: 30_000 } } };
    ann.app.say("first", null);
    await network.clock.run(1_000);
    const until = ann.talk.waitsUntil ?? 0;
    expect(until - network.clock.now).toBeGreaterThan(28_000);
    ann.app.say("second", null);
    await network.clock.run(28_000);
    expect(ann.deliveries).toEqual(["sending", "sending"]);
    expect(bob.texts).toEqual([]);
    await network.clock.run(2_000);
    expect(ann.talk.waitsUntil).toBeNull();
    expect(bob.texts).toEqual(["first", "second"]);
  });

  it("says nothing of a wait that is over before it is read", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.answerNext = { event: "chat:message", answer: { error: { code: "rate_limited", retryInMs: 700 } } };
    ann.app.say("first", null);
    await network.clock.run(300);
    expect(ann.talk.waitsUntil).toBeNull();
  });

  it("never has more on its way than a long-polling server takes in one post", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.cut(ann);
    for (let number = 1; number <= 40; number += 1) ann.app.say(`${number}`, null);
    network.weather = { ...CALM, fastest: 1_000, slowest: 1_000 };
    await network.clock.run(1_700);
    const before = network.clock.now;
    await network.clock.run(1_500);
    expect(network.sentAt("chat:message", ann).filter((at) => at > before).length).toBeLessThanOrEqual(8);
    network.weather = CALM;
    await network.clock.run(20_000);
    expect(bob.texts).toEqual(Array.from({ length: 40 }, (_, index) => `${index + 1}`));
  });

  it("shows a message as failed after eight seconds without acceptance, and as sent once it was", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.down = true;
    network.cut(ann);
    ann.app.say("hello", null);
    await network.clock.run(7_900);
    expect(ann.deliveries).toEqual(["sending"]);
    await network.clock.run(200);
    expect(ann.deliveries).toEqual(["failed"]);
    network.down = false;
    await network.clock.run(10_000);
    expect(ann.deliveries).toEqual(["delivered"]);
    expect(bob.texts).toEqual(["hello"]);
  });

  it("sends what failed again when asked to", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.answerNext = { event: "chat:message", answer: { error: { code: "busy", retryInMs: 60_000 } } };
    ann.app.say("hello", null);
    await network.clock.run(9_000);
    expect(ann.deliveries).toEqual(["failed"]);
    ann.app.retry(ann.talk.messages[0]?.id ?? "");
    expect(ann.deliveries).toEqual(["sending"]);
    await network.clock.run(200);
    expect(bob.texts).toEqual(["hello"]);
  });

  it("does not let one message that the server never takes hold up the others", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.answerNext = { event: "chat:message", answer: { error: { code: "too_large" } } };
    ann.app.say("refused", null);
    ann.app.say("taken", null);
    await network.clock.run(1_000);
    expect(bob.texts).toEqual(["taken"]);
    expect(ann.deliveries).toEqual(["failed", "delivered"]);
    ann.app.retry(ann.talk.messages[0]?.id ?? "");
    await network.clock.run(1_000);
    expect(bob.texts).toEqual(["taken", "refused"]);
    expect(ann.deliveries).toEqual(["delivered", "delivered"]);
  });

  it("begins a new connection when nothing at all answers", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    // Half open: the browser believes in its network, and nothing comes through.
    network.mute(ann);
    ann.app.say("hello", null);
    await network.clock.run(4_900);
    expect(bob.texts).toEqual([]);
    await network.clock.run(1_000);
    expect(bob.texts).toEqual(["hello"]);
  });
});

describe("receiving", () => {
  it("answers a burst with one receipt at once and one for all the rest", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    for (let number = 1; number <= 5; number += 1) ann.app.say(`${number}`, null);
    await network.clock.run(1_000);
    expect(network.requested("chat:receipt", bob)).toMatchObject([
      { delivered: 1, read: 0 },
      { delivered: 5, read: 0 },
    ]);
  });

  it("answers a repeat with the receipt that was lost", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    losePushes(network, 1, "chat:receipt");
    ann.app.say("hello", null);
    await network.clock.run(1_000);
    expect([bob.texts, ann.deliveries]).toEqual([["hello"], ["sent"]]);
    await network.clock.run(4_000);
    expect([bob.texts, ann.deliveries]).toEqual([["hello"], ["delivered"]]);
  });

  it("repeats its receipt after its own absence and after the partner's", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.app.setWatching(true);
    losePushes(network, 1, "chat:receipt");
    ann.app.say("one", null);
    await network.clock.run(500);
    expect(ann.deliveries).toEqual(["sent"]);
    network.cut(bob);
    await network.clock.run(1_000);
    expect(ann.deliveries).toEqual(["read"]);
    bob.app.setWatching(false);
    ann.app.say("two", null);
    await network.clock.run(500);
    losePushes(network, 1, "chat:receipt");
    bob.app.setWatching(true);
    await network.clock.run(500);
    expect(ann.deliveries).toEqual(["read", "delivered"]);
    network.cut(ann);
    await network.clock.run(1_000);
    expect(ann.deliveries).toEqual(["read", "read"]);
    bob.app.setWatching(false);
    ann.app.say("three", null);
    await network.clock.run(500);
    losePushes(network, 1, "chat:receipt");
    bob.app.setWatching(true);
    await network.clock.run(500);
    network.cut(bob);
    await network.clock.run(1_000);
    expect(ann.deliveries).toEqual(["read", "read", "read"]);
  });
});

/** The network swallows the next pushes of a kind. */
function losePushes(network: Network, count: number, event = "chat:message"): void {
  network.swallow = { event, count };
}
