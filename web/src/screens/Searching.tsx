import { useEffect, useRef } from "react";
import type { Profile } from "../contract.gen";
import type { Speech } from "../i18n/speak";
import { useSpeech } from "../i18n/useSpeech";
import type { SearchView } from "../model";
import { Button } from "../ui/Button";
import { EmptySeat, Face } from "../ui/Face";
import { useAnnounce } from "./announce";
import { useArrival } from "./arrival";
import { Invite } from "./Invite";
import { TopBar } from "./TopBar";
import { useKeys } from "./useKeys";
import { useNow } from "./useNow";
import { useVisavis } from "./useVisavis";

type Search = Extract<SearchView, { phase: "searching" }>;

/** What the server does right now, no more. */
function accepted(speech: Speech, { accepts, interests, languages }: Search): string {
  if (accepts === "interests" && interests.length > 0)
    return speech.t("search.interests", { interests: speech.any(interests) });
  if (accepts === "language" && languages.length > 0)
    return speech.t("search.language", { languages: speech.any(languages.map(speech.language)) });
  return speech.t("search.anyone");
}

export function Searching({ search, profile }: { readonly search: Search; readonly profile: Profile }) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const announce = useAnnounce();
  const now = useNow();
  const heading = useRef<HTMLHeadingElement>(null);
  useArrival(heading);

  const words = search.paused ? t("search.paused") : search.alone ? t("search.aloneTitle") : accepted(speech, search);
  useEffect(() => announce(words), [announce, words]);

  useKeys((event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    void visavis.cancel();
  });

  return (
    <div data-screen="searching" data-accepts={search.accepts} className="screen flex flex-col">
      <TopBar />
      <main
        id="main"
        tabIndex={-1}
        className="mx-auto flex w-full max-w-2xl flex-1 flex-col items-center justify-center gap-4 pb-16 text-center"
      >
        <div className="relative mb-2 flex items-center gap-2 lg:gap-3" aria-hidden="true">
          <div className="hue-glow absolute -inset-14 -z-10" style={{ "--hue": profile.hue }} />
          <Face hue={profile.hue} gaze={search.paused ? "closed" : "glance"} className={search.alone ? "size-20" : "size-24 lg:size-32"} />
          <EmptySeat className={search.alone ? "size-20" : "size-24 lg:size-32"} />
        </div>
        <h1 ref={heading} tabIndex={-1} data-testid="search-words" className="max-w-full text-[1.65rem] leading-tight [overflow-wrap:anywhere] font-bold tracking-tight lg:text-4xl">
          {words}
        </h1>
        {search.alone && !search.paused && (
          <p className="max-w-full text-lg [overflow-wrap:anywhere]" data-testid="search-accepts">
            {accepted(speech, search)}
          </p>
        )}
        <p className="text-lg text-soft tabular-nums" data-testid="elapsed">
          {t("search.elapsed", { time: speech.elapsed(now - search.since) })}
        </p>
        {search.alone && !search.paused && <Invite />}
        <div className="mt-2 flex items-center gap-4">
          <Button data-testid="cancel" className="px-8" onClick={() => void visavis.cancel()}>
            {t("search.cancel")}
          </Button>
          <span className="hidden text-sm text-soft lg:inline touch:lg:hidden">{t("search.escHint")}</span>
        </div>
      </main>
    </div>
  );
}
