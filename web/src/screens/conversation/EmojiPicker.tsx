import { useSpeech } from "../../i18n/useSpeech";
import { EmojiGrid } from "../../ui/EmojiGrid";
import { MORE_EMOJI, QUICK_EMOJI } from "./emoji";

interface Props {
  readonly onPick: (emoji: string) => void;
  /** Said of each: "React with …". */
  readonly itemLabel: (emoji: string) => string;
}

export function EmojiPicker({ onPick, itemLabel }: Props) {
  const { t } = useSpeech();
  return (
    <div className="max-h-64 w-[20.5rem] max-w-[calc(100vw-2rem)] overflow-y-auto overscroll-contain">
      <EmojiGrid
        emoji={[...QUICK_EMOJI, ...MORE_EMOJI]}
        label={t("chat.emojiPick")}
        itemLabel={itemLabel}
        onPick={onPick}
        columns={8}
      />
    </div>
  );
}
