/** How messages stand together: who follows whom, and where time gets a line of its own. */
import type { MessageView } from "../../model";

const TOGETHER_MS = 3 * 60_000;
const STAMP_MS = 15 * 60_000;

export interface Row {
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

export function rows(messages: readonly MessageView[]): Row[] {
  const stamps = messages.map((message, index) => stampBetween(messages[index - 1], message));
  const joined = (index: number): boolean => {
    const [before, message] = [messages[index - 1], messages[index]];
    if (before === undefined || message === undefined || stamps[index] !== null) return false;
    return before.mine === message.mine && message.at - before.at <= TOGETHER_MS;
  };
  return messages.map((message, index) => ({
    message,
    stamp: stamps[index] ?? null,
    first: !joined(index),
    last: !joined(index + 1),
  }));
}
