import { expect, test } from "vitest";
import type { CallSide, CallView } from "../../model";
import { standing } from "./ladder";

const side = (rung: CallView["rung"]) => ({ rung }) as CallSide;
const at = (mine: CallView["rung"], theirs: CallView["rung"]) => standing({ mine: side(mine), theirs: side(theirs) });

test("by voice, the step up is video, and it needs nobody's leave to ask", () => {
  expect(at("voice", "voice")).toMatchObject({ up: { testid: "add-video" }, down: [], invited: null, waiting: null });
});

test("a partner who stands higher invites", () => {
  expect(at("voice", "blurred").invited?.title).toBe("ladder.inviteVideo");
  expect(at("voice", "clear").invited?.title).toBe("ladder.inviteVideo");
  expect(at("blurred", "clear").invited?.title).toBe("ladder.inviteReveal");
  expect(at("blurred", "clear").up?.testid).toBe("reveal");
});

test("a partner who stands lower is waited for", () => {
  expect(at("blurred", "voice")).toMatchObject({ up: null, waiting: "ladder.waitVideo" });
  expect(at("clear", "blurred")).toMatchObject({ up: null, waiting: "ladder.waitReveal" });
});

test("every step can be taken back, down to voice", () => {
  expect(at("clear", "clear").down.map(({ testid }) => testid)).toEqual(["unreveal", "drop-video"]);
  expect(at("blurred", "clear").down.map(({ testid }) => testid)).toEqual(["drop-video"]);
});
