/** Where both stand on the consent ladder, and what one can do from there. */
import type { PlainKey } from "../../i18n/texts";
import type { CallView, Rung } from "../../model";
import type { IconName } from "../../ui/Icon";

export const STEPS: readonly Rung[] = ["voice", "blurred", "clear"];

/** 0 for voice, 1 blurred, 2 clear. */
export const height = (rung: CallView["rung"]): number => Math.max(0, STEPS.indexOf(rung as Rung));

export interface Step {
  readonly testid: "add-video" | "drop-video" | "reveal" | "unreveal";
  readonly label: PlainKey;
  readonly icon: IconName;
  readonly to: Rung;
}

const ADD: Step = { testid: "add-video", label: "ladder.addVideo", icon: "video", to: "blurred" };
const REVEAL: Step = { testid: "reveal", label: "ladder.reveal", icon: "eye", to: "clear" };
const BLUR: Step = { testid: "unreveal", label: "ladder.unreveal", icon: "eyeOff", to: "blurred" };
const DROP: Step = { testid: "drop-video", label: "ladder.dropVideo", icon: "voice", to: "voice" };

export interface Standing {
  /** One step higher, if there is one to take now. */
  readonly up: Step | null;
  readonly down: readonly Step[];
  /** The partner stands higher: an invitation. */
  readonly invited: { readonly title: PlainKey; readonly line: PlainKey } | null;
  /** The partner stands lower. */
  readonly waiting: PlainKey | null;
}

export function standing({ mine, theirs }: Pick<CallView, "mine" | "theirs">): Standing {
  const [here, there] = [height(mine.rung), height(theirs.rung)];
  return {
    up: here === 0 ? ADD : here === 1 && there >= 1 ? REVEAL : null,
    down: here === 2 ? [BLUR, DROP] : here === 1 ? [DROP] : [],
    invited:
      there <= here
        ? null
        : here === 0
          ? { title: "ladder.inviteVideo", line: "ladder.inviteVideoLine" }
          : { title: "ladder.inviteReveal", line: "ladder.inviteRevealLine" },
    waiting: here <= there ? null : there === 0 ? "ladder.waitVideo" : "ladder.waitReveal",
  };
}
