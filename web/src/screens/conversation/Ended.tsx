import { useEffect, useRef, useState } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { ConversationView, SearchView } from "../../model";
import { Button } from "../../ui/Button";
import { useAnnounce } from "../announce";
import { problemWords } from "../problem";
import { isFree, useKeys } from "../useKeys";

interface Props {
  readonly conversation: ConversationView;
  readonly problem: Extract<SearchView, { phase: "idle" }>["problem"];
  readonly onAnother: () => void;
  readonly onLobby: () => void;
}

/** Whoever was about to send with Enter as the other left must not lose the conversation by it. */
const GUARD_MS = 900;

const ENDINGS = {
  me: "chat.endedMe",
  left: "chat.endedLeft",
  lost: "chat.endedLost",
  missed: "chat.endedMissed",
} as const;

/** In the place of the message box, once it is over. */
export function Ended({ conversation, problem, onAnother, onLobby }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const announce = useAnnounce();
  const button = useRef<HTMLButtonElement>(null);
  const [guarded, setGuarded] = useState(conversation.ended !== "me");
  const { name } = conversation.partner;
  const line = conversation.blocked
    ? t("chat.endedBlocked", { name })
    : t(ENDINGS[conversation.ended ?? "me"], { name });

  useEffect(() => announce(line), [announce, line]);
  useEffect(() => {
    button.current?.focus({ preventScroll: true });
    const timer = setTimeout(() => setGuarded(false), GUARD_MS);
    return () => clearTimeout(timer);
  }, []);

  function another() {
    if (!guarded) onAnother();
  }

  useKeys((event) => {
    if (event.key === "Enter" && isFree(event)) another();
  });

  return (
    <section
      data-testid="ended"
      data-ended={conversation.ended}
      data-guarded={guarded}
      className="shrink-0 animate-arrive border-t border-line px-4 pt-4 pb-[max(1rem,env(safe-area-inset-bottom))] text-center sm:px-6 lg:pb-6"
    >
      <p className="text-lg font-semibold">{line}</p>
      <p className="text-sm text-soft">{t("chat.endedReadable")}</p>
      {problem !== null && (
        <p role="alert" className="mt-2 text-sm font-semibold text-accent-strong">
          {problemWords(speech, problem)}
        </p>
      )}
      <div className="mt-4 flex flex-wrap justify-center gap-3">
        <Button
          ref={button}
          look="main"
          data-testid="find-another"
          data-after-dialog
          className="min-w-44"
          onKeyDown={(event) => {
            if (guarded && event.key === "Enter") event.preventDefault();
          }}
          // A click is meant; only a key that was already on its way is not.
          onClick={onAnother}
        >
          {t("chat.findAnother")}
        </Button>
        <Button onClick={onLobby} data-testid="to-lobby">
          {t("chat.toLobby")}
        </Button>
      </div>
    </section>
  );
}
