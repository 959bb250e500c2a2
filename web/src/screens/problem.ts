import type { ErrorCode } from "../contract.gen";
import type { Speech } from "../i18n/speak";

/** What went wrong, in words. A code that a newer server made up gets the general ones. */
export function problemWords(speech: Speech, problem: ErrorCode | "unreachable"): string {
  const words = speech.t(`error.${problem}`) as string | undefined;
  return words ?? speech.t("error.internal");
}
