import { useEffect, useRef } from "react";
import { useSpeech } from "../i18n/useSpeech";
import type { ConversationView } from "../model";

/** The tab says who calls, how much is unread, and that somebody came while one was elsewhere. */
export function useTitle(conversation: ConversationView | null, rings: boolean): void {
  const { t, number } = useSpeech();
  const seen = useRef<string | null>(null);
  const unread = conversation?.unread ?? 0;
  const id = conversation?.id ?? null;
  const caller = rings ? (conversation?.partner.name ?? null) : null;

  useEffect(() => {
    const show = () => {
      const visible = document.visibilityState === "visible";
      if (visible || id === null) seen.current = id;
      const called = caller === null ? "" : `${t("app.calling", { name: caller })} · `;
      const news = called !== "" ? called : unread > 0 ? `(${number(unread)}) ` : seen.current === id ? "" : `${t("app.someoneHere")} · `;
      document.title = `${news}${t("app.name")}`;
    };
    show();
    document.addEventListener("visibilitychange", show);
    return () => {
      document.removeEventListener("visibilitychange", show);
      document.title = t("app.name");
    };
  }, [t, number, unread, id, caller]);
}
