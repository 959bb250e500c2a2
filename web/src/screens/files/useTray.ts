import { useEffect, useEffectEvent, useRef, useState } from "react";
import { type ErrorCode, MAX_TEXT } from "../../contract.gen";
import { useVisavis } from "../useVisavis";
import { kindOf } from "./words";

/** A file that was chosen and is looked at once more before it is sent. */
export interface Chosen {
  readonly key: number;
  readonly file: File;
  readonly text: string;
  /** Its words began as what stood in the message box. */
  readonly draft: boolean;
  /** An object URL, for what can be seen. */
  readonly preview: string | null;
  readonly refused: { readonly problem: ErrorCode | "unreadable_here"; readonly limit: number | null } | null;
}

const isSeen = (file: File) => ["picture", "video"].includes(kindOf(file.type));

function letGo(chosen: readonly Chosen[]) {
  for (const { preview } of chosen) if (preview !== null) URL.revokeObjectURL(preview);
}

export interface Tray {
  readonly chosen: readonly Chosen[];
  /** The first that can go takes the draft along. */
  readonly add: (files: readonly File[], draft?: string) => void;
  readonly remove: (key: number) => void;
  readonly write: (key: number, text: string) => void;
  readonly clear: () => void;
}

export function useTray(): Tray {
  const visavis = useVisavis();
  const [chosen, setChosen] = useState<readonly Chosen[]>([]);
  const made = useRef(0);

  const leave = useEffectEvent(() => letGo(chosen));
  useEffect(() => () => leave(), []);

  return {
    chosen,
    add(files, draft = "") {
      const words = draft.trim();
      // What is too long for a message is for its writer to shorten.
      let left = words !== "" && Array.from(words).length <= MAX_TEXT && chosen.every(({ refused }) => refused !== null);
      const more = files.map((file): Chosen => {
        made.current += 1;
        const refused = visavis.checkFile(file);
        const takes = left && refused === null;
        if (takes) left = false;
        return { key: made.current, file, text: takes ? words : "", draft: takes, preview: isSeen(file) ? URL.createObjectURL(file) : null, refused };
      });
      setChosen((now) => [...now, ...more]);
    },
    remove(key) {
      letGo(chosen.filter((one) => one.key === key));
      setChosen((now) => now.filter((one) => one.key !== key));
    },
    write: (key, text) => setChosen((now) => now.map((one) => (one.key === key ? { ...one, text } : one))),
    clear() {
      letGo(chosen);
      setChosen([]);
    },
  };
}
