import type { Speech } from "../../i18n/speak";
import type { CallView } from "../../model";
import { problemWords } from "../problem";

export function callProblemWords(speech: Speech, problem: NonNullable<CallView["problem"]>): string {
  return problem === "screen_denied" || problem === "media_failed"
    ? speech.t(`call.problem.${problem}`)
    : problemWords(speech, problem);
}
