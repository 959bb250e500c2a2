import { useEffect, useState } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { useAnnounce } from "../announce";
import { useKeys } from "../useKeys";

const SURE_WITHIN_MS = 3000;

/** Leaves for the next stranger: there is no way back, so it asks once, by key and by touch alike. */
export function Skip({ onSkip }: { readonly onSkip: () => void }) {
  const { t } = useSpeech();
  const announce = useAnnounce();
  const [asked, setAsked] = useState<"key" | "press" | null>(null);

  useEffect(() => {
    if (asked === null) return;
    const timer = setTimeout(() => setAsked(null), SURE_WITHIN_MS);
    return () => clearTimeout(timer);
  }, [asked]);

  function ask(by: "key" | "press") {
    if (asked !== null) {
      onSkip();
      return;
    }
    setAsked(by);
    announce(t(by === "key" ? "chat.skipEsc" : "chat.skipAgain"));
  }

  useKeys((event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    ask("key");
  });

  return (
    <>
      <Button
        look={asked === null ? "quiet" : "main"}
        data-testid="skip"
        data-asked={asked !== null}
        onClick={() => ask("press")}
        className="px-3.5 lg:flex-1"
      >
        <Icon name="skip" />
        {t(asked === null ? "chat.skip" : "chat.skipAgain")}
      </Button>
      {asked === "key" && (
        <p className="pointer-events-none fixed inset-x-0 top-20 z-30 mx-auto w-fit animate-arrive rounded-2xl bg-ink px-5 py-3 font-medium text-paper shadow-float">
          {t("chat.skipEsc")}
        </p>
      )}
    </>
  );
}
