import { useDeferredValue, useMemo, useState } from "react";
import { MAX_LANGUAGES } from "../contract.gen";
import { useSpeech } from "../i18n/useSpeech";
import { Button } from "../ui/Button";
import { Dialog } from "../ui/Dialog";
import { Icon } from "../ui/Icon";
import { useStore } from "../useStore";
import { useAnnounce } from "./announce";
import { LANGUAGE_CODES } from "./languageCodes";
import { useVisavis } from "./useVisavis";

/** Without accents and case, so that "espanol" finds "español". */
function plainest(text: string): string {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

/** A language's name in itself, where the browser knows it. */
function ownName(code: string): string {
  try {
    return new Intl.DisplayNames(code, { type: "language", fallback: "code" }).of(code) ?? code;
  } catch {
    return code;
  }
}

export function LanguagesDialog({ onClose }: { readonly onClose: () => void }) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const { languages } = useStore(visavis.lobby);
  const announce = useAnnounce();
  const [query, setQuery] = useState("");
  const wanted = plainest(useDeferredValue(query).trim());

  const known = useMemo(() => {
    const collator = new Intl.Collator(speech.locale);
    return [...new Set([...LANGUAGE_CODES, ...languages])]
      .map((code) => {
        const name = speech.language(code);
        const own = ownName(code);
        return { code, name, own, search: plainest(`${name} ${own} ${code}`) };
      })
      .sort((a, b) => collator.compare(a.name, b.name));
    // The list keeps its order while one picks from it.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [speech]);

  const found = known.filter(({ search }) => search.includes(wanted));
  const full = languages.length >= MAX_LANGUAGES;

  function toggle(code: string) {
    const has = languages.includes(code);
    if (!has && full) return;
    visavis.setLanguages(has ? languages.filter((other) => other !== code) : [...languages, code]);
    announce(t(has ? "lobby.languageRemoved" : "lobby.languageAdded", { language: speech.language(code) }));
  }

  return (
    <Dialog title={t("lobby.languages")} closeLabel={t("app.close")} onClose={onClose}>
      <label className="relative mt-2 block">
        <span className="sr-only">{t("lobby.languageSearch")}</span>
        <Icon name="search" className="pointer-events-none absolute start-3.5 top-1/2 size-5 -translate-y-1/2 text-soft" />
        <input
          type="search"
          value={query}
          dir={query === "" ? undefined : "auto"}
          placeholder={t("lobby.languageSearch")}
          onChange={(event) => setQuery(event.target.value)}
          onKeyDown={(event) => {
            const first = found[0];
            if (event.key !== "Enter" || first === undefined || query.trim() === "") return;
            event.preventDefault();
            toggle(first.code);
            setQuery("");
          }}
          className="h-12 w-full rounded-xl border border-edge bg-surface ps-11 pe-3"
        />
      </label>
      <p role="status" className="mt-2 min-h-5 text-sm text-soft">
        {found.length === 0 ? t("lobby.languageNone") : full ? t("lobby.languagesFull", { max: MAX_LANGUAGES }) : ""}
      </p>
      <ul className="-mx-2 mt-1 h-[min(22rem,48dvh)] overflow-y-auto overscroll-contain px-2">
        {found.map(({ code, name, own }) => {
          const chosen = languages.includes(code);
          return (
            <li key={code}>
              <button
                type="button"
                aria-pressed={chosen}
                disabled={full && !chosen}
                onClick={() => toggle(code)}
                className="flex min-h-12 w-full items-center justify-between gap-3 rounded-xl px-3 text-start hover:bg-raised disabled:text-soft aria-pressed:font-semibold"
              >
                <span className="min-w-0 truncate">
                  <bdi>{name}</bdi>
                  {own.toLowerCase() !== name.toLowerCase() && own !== code && (
                    <bdi lang={code} className="ms-2 font-normal text-soft">
                      {own}
                    </bdi>
                  )}
                </span>
                {chosen && <Icon name="check" className="size-5 text-accent-strong" />}
              </button>
            </li>
          );
        })}
      </ul>
      <Button look="main" className="mt-4 w-full" onClick={onClose}>
        {t("settings.done")}
      </Button>
    </Dialog>
  );
}
