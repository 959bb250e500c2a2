import { useState } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { MessageView } from "../../model";
import { IconButton } from "../../ui/Button";
import { EmojiGrid } from "../../ui/EmojiGrid";
import { Icon } from "../../ui/Icon";
import { Pop } from "../../ui/Pop";
import { useAnnounce } from "../announce";
import { FileTool } from "../files/FileTool";
import { QUICK_EMOJI } from "./emoji";
import { EmojiPicker } from "./EmojiPicker";

export interface MessageActions {
  readonly react: (message: MessageView, emoji: string | null) => void;
  readonly reply: (message: MessageView) => void;
  readonly remove: (message: MessageView) => void;
  /** A surface of this message is open: it stays the chosen one. */
  readonly hold: (held: boolean) => void;
}

interface Props {
  readonly message: MessageView;
  readonly over: boolean;
  readonly actions: MessageActions;
}

const SMALL = "size-10 rounded-lg";

/** What can be done with the message one points at. */
export function MessageTools({ message, over, actions }: Props) {
  const { t } = useSpeech();
  const announce = useAnnounce();
  const [reacting, setReacting] = useState(false);
  const [more, setMore] = useState(false);
  const mine = message.reactions.find((reaction) => reaction.mine)?.emoji ?? null;

  function open(now: boolean) {
    setReacting(now);
    setMore(false);
    actions.hold(now);
  }

  function pick(emoji: string) {
    actions.react(message, emoji === mine ? null : emoji);
    open(false);
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(message.text ?? "");
      announce(t("chat.copied"));
    } catch {
      announce(t("search.copyFailed"));
    }
  }

  return (
    <div
      role="toolbar"
      aria-label={t("chat.actions")}
      className={`absolute bottom-[calc(100%-0.6rem)] z-10 flex rounded-xl border border-line bg-surface p-0.5 shadow-float ${message.mine ? "end-0" : "start-0"}`}
    >
      {!over && (
        <>
          <Pop
            open={reacting}
            onOpenChange={open}
            label={t("chat.react")}
            trigger={(props) => (
              <IconButton label={t("chat.react")} className={SMALL} {...props}>
                <Icon name="smile" />
              </IconButton>
            )}
          >
            {more ? (
              <EmojiPicker onPick={pick} itemLabel={(emoji) => t("chat.reactWith", { emoji })} />
            ) : (
              <div className="flex items-center">
                <EmojiGrid
                  emoji={QUICK_EMOJI}
                  label={t("chat.react")}
                  itemLabel={(emoji) => t(emoji === mine ? "chat.unreact" : "chat.reactWith", { emoji })}
                  chosen={mine ?? ""}
                  onPick={pick}
                  columns={6}
                />
                <IconButton label={t("chat.moreEmoji")} className={SMALL} onClick={() => setMore(true)}>
                  <Icon name="plus" />
                </IconButton>
              </div>
            )}
          </Pop>
          <IconButton label={t("chat.reply")} className={SMALL} onClick={() => actions.reply(message)}>
            <Icon name="reply" />
          </IconButton>
        </>
      )}
      {message.text !== "" && (
        <IconButton label={t("chat.copy")} className={SMALL} onClick={() => void copy()}>
          <Icon name="copy" />
        </IconButton>
      )}
      {message.file !== null && <FileTool file={message.file} mine={message.mine} className={SMALL} />}
      {message.mine && !over && (
        <IconButton label={t("chat.delete")} className={SMALL} onClick={() => actions.remove(message)}>
          <Icon name="trash" />
        </IconButton>
      )}
    </div>
  );
}
