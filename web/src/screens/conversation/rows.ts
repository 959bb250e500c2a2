/** How messages stand together: who follows whom, what happened between them, and where time gets a line of its own. */
import type { CallLine, MessageView } from "../../model";

const TOGETHER_MS = 3 * 60_000;
const STAMP_MS = 15 * 60_000;

export interface Row {
  /** Calls that were over before it. */
  readonly calls: readonly CallLine[];
  readonly message: MessageView;
  /** A new day, or a long silence, before it. */
  readonly stamp: "day" | "time" | null;
  readonly first: boolean;
  readonly last: boolean;
}

const sameDay = (a: number, b: number) => new Date(a).toDateString() === new Date(b).toDateString();

function stampBetween(before: MessageView | undefined, message: MessageView): Row["stamp"] {
  if (before === undefined) return "time";
  if (!sameDay(before.at, message.at)) return "day";
  return message.at - before.at > STAMP_MS ? "time" : null;
}

export function rows(messages: readonly MessageView[], calls: readonly CallLine[] = []): Row[] {
  const stamps = messages.map((message, index) => stampBetween(messages[index - 1], message));
  const between = messages.map((message, index) => {
    const since = messages[index - 1]?.at ?? -Infinity;
    return calls.filter(({ at }) => at > since && at <= message.at);
  });
  const joined = (index: number): boolean => {
    const [before, message] = [messages[index - 1], messages[index]];
    if (before === undefined || message === undefined || stamps[index] !== null) return false;
    return between[index]?.length === 0 && before.mine === message.mine && message.at - before.at <= TOGETHER_MS;
  };
  return messages.map((message, index) => ({
    calls: between[index] ?? [],
    message,
    stamp: stamps[index] ?? null,
    first: !joined(index),
    last: !joined(index + 1),
  }));
}

/** The calls that were over after the last message. */
export function callsAfter(messages: readonly MessageView[], calls: readonly CallLine[]): readonly CallLine[] {
  const since = messages.at(-1)?.at ?? -Infinity;
  return calls.filter(({ at }) => at > since);
}
