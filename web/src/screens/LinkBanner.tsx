import { useSpeech } from "../i18n/useSpeech";
import type { Hold, Link } from "../model";
import { CountDown } from "./CountDown";
import { problemWords } from "./problem";

/**
 * Says so while the connection is away. The live region stays, so that its change is heard. In a conversation on a
 * phone it leaves the partner and the skip button in sight. Most absences are over before it shows. Where the server
 * asked to wait, it says why and for how long.
 */
export function LinkBanner({ link, hold }: { readonly link: Link; readonly hold: Hold | null }) {
  const speech = useSpeech();
  const { t, tn } = speech;
  return (
    <div role="status" aria-live="polite" data-testid="link" data-link={link} className="pointer-events-none fixed inset-x-0 top-[max(0.75rem,env(safe-area-inset-top))] z-30 flex justify-center px-4 max-lg:[body:has([data-screen=conversation])_&]:top-26">
      {link !== "online" && (
        <p className="flex animate-arrive [animation-delay:400ms] items-center gap-3 rounded-2xl bg-ink px-4 py-2.5 text-sm font-medium text-paper shadow-float">
          <span className="size-2 shrink-0 animate-dot rounded-full bg-current" aria-hidden="true" />
          {link === "offline" || hold === null ? (
            t(link === "offline" ? "link.offline" : "link.reconnecting")
          ) : (
            <span>
              {problemWords(speech, hold.problem)}{" "}
              <CountDown
                key={hold.retryAt}
                until={hold.retryAt}
                words={(seconds) => (seconds === 0 ? t("failed.retrying") : tn("failed.retryIn", seconds))}
              />
            </span>
          )}
        </p>
      )}
    </div>
  );
}
