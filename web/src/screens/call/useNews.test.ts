import { expect, test } from "vitest";
import type { CallSide, CallView } from "../../model";
import { news } from "./useNews";

const side = (more: Partial<CallSide> = {}): CallSide => ({
  rung: "blurred",
  direct: false,
  recording: false,
  media: { microphone: true, camera: true, screen: false },
  speaking: false,
  stream: null,
  screen: null,
  ...more,
});
const CALL = {
  phase: "live",
  rung: "blurred",
  direct: false,
  recording: "off",
  mine: side(),
  theirs: side(),
} as CallView;

test("nothing is said while nothing changes, or only who speaks", () => {
  expect(news(CALL, { ...CALL, theirs: side({ speaking: true }) })).toEqual([]);
});

test("a step up by the partner is an invitation; by both, it is said where they are", () => {
  expect(news(CALL, { ...CALL, theirs: side({ rung: "clear" }) })).toEqual(["ladder.inviteReveal"]);
  const both = { ...CALL, rung: "clear" as const, mine: side({ rung: "clear" }), theirs: side({ rung: "clear" }) };
  expect(news({ ...CALL, theirs: side({ rung: "clear" }) }, both)).toEqual(["ladder.isClear"]);
});

test("a step back says who took it", () => {
  const before = { ...CALL, rung: "clear" as const, mine: side({ rung: "clear" }), theirs: side({ rung: "clear" }) };
  expect(news(before, { ...before, rung: "blurred", theirs: side() })).toEqual(["said.steppedBackBlurred"]);
  expect(news(before, { ...before, rung: "voice", mine: side({ rung: "voice" }) })).toEqual(["said.voice"]);
});

test("what the partner turns off is said, and so is a recording", () => {
  const off = side({ media: { microphone: false, camera: false, screen: true } });
  expect(news(CALL, { ...CALL, theirs: off })).toEqual(["said.muted", "said.cameraOff", "said.screenOn"]);
  expect(news(CALL, { ...CALL, recording: "asked", theirs: side({ recording: true }) })).toEqual(["record.invite"]);
  expect(news(CALL, { ...CALL, recording: "on" })).toEqual(["said.recordingOn"]);
});

test("the end of a call is said, and of one that rang in its own words", () => {
  expect(news(CALL, null)).toEqual(["said.over"]);
  expect(news({ ...CALL, phase: "ringing" }, null)).toEqual(["said.answered"]);
});
