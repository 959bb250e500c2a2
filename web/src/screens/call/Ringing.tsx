import { useEffect, useEffectEvent, useId, useRef } from "react";
import type { Profile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Button } from "../../ui/Button";
import { Face } from "../../ui/Face";
import { Icon } from "../../ui/Icon";

const BUZZ_MS = 3000;
const CARD =
  "fixed inset-x-3 top-[max(0.75rem,env(safe-area-inset-top))] z-40 mx-auto max-w-lg lg:max-w-xl animate-arrive rounded-card border border-line bg-surface p-5 text-ink shadow-float lg:top-6";

function RingingFace({ hue }: { readonly hue: number }) {
  return (
    <span className="relative inline-flex shrink-0" aria-hidden="true" style={{ "--hue": hue }}>
      <span className="hue-dot absolute inset-0 animate-ring rounded-full" />
      <span className="hue-dot absolute inset-0 animate-ring rounded-full [animation-delay:0.8s]" />
      <Face hue={hue} gaze="start" className="relative size-14" />
    </span>
  );
}

/** Whoever is in the middle of a word must not answer a call with the next space. */
const writing = () =>
  document.activeElement instanceof HTMLTextAreaElement && document.activeElement.value.trim() !== "";

interface IncomingProps {
  readonly partner: Profile;
  readonly video: boolean;
  readonly onAccept: (what: "voice" | "video") => void;
  readonly onDecline: () => void;
  /** It is gone again; the focus was in it. */
  readonly onGone: () => void;
}

export function Incoming({ partner, video, onAccept, onDecline, onGone }: IncomingProps) {
  const { t } = useSpeech();
  const ids = useId();
  const card = useRef<HTMLDivElement>(null);
  const gone = useEffectEvent(onGone);

  useEffect(() => {
    const element = card.current;
    if (!writing() && document.querySelector("dialog[open]") === null) element?.focus({ preventScroll: true });
    let inside = false;
    const follow = () => {
      inside = element?.contains(document.activeElement) === true;
    };
    follow();
    document.addEventListener("focusin", follow);
    return () => {
      document.removeEventListener("focusin", follow);
      if (inside) gone();
    };
  }, []);

  useEffect(() => {
    // Where nobody has touched the page yet the browser would refuse, and complain.
    if (!("vibrate" in navigator) || !navigator.userActivation.hasBeenActive) return;
    const buzz = () => navigator.vibrate([350, 150, 350]);
    buzz();
    const timer = setInterval(buzz, BUZZ_MS);
    return () => {
      clearInterval(timer);
      navigator.vibrate(0);
    };
  }, []);

  return (
    <div
      ref={card}
      role="alertdialog"
      aria-labelledby={`${ids}-title`}
      aria-describedby={`${ids}-line`}
      data-testid="incoming-call"
      data-video={video}
      tabIndex={-1}
      className={CARD}
    >
      <div className="flex items-center gap-4">
        <RingingFace hue={partner.hue} />
        <div className="min-w-0" role="alert">
          <h2 id={`${ids}-title`} className="text-lg leading-snug font-bold [overflow-wrap:anywhere]">
            {t(video ? "call.incomingVideo" : "call.incomingVoice", { name: partner.name })}
          </h2>
          <p id={`${ids}-line`} className="text-sm text-soft">
            {t(video ? "call.incomingVideoLine" : "call.incomingVoiceLine")}
          </p>
        </div>
      </div>
      <div className="mt-4 flex flex-wrap gap-2">
        {video && (
          <Button look="main" data-testid="accept-call" className="flex-auto px-3" onClick={() => onAccept("video")}>
            <Icon name="video" />
            {t("call.acceptVideo")}
          </Button>
        )}
        <Button
          look={video ? "quiet" : "main"}
          data-testid={video ? "accept-voice" : "accept-call"}
          className="flex-auto px-3"
          onClick={() => onAccept("voice")}
        >
          <Icon name={video ? "voice" : "phone"} />
          {t(video ? "call.acceptVoice" : "call.accept")}
        </Button>
        <Button look="quiet" data-testid="decline-call" className="flex-auto px-3" onClick={onDecline}>
          <Icon name="hangUp" className="size-5 text-stop" />
          {t("call.decline")}
        </Button>
      </div>
    </div>
  );
}

interface OutgoingProps {
  readonly partner: Profile;
  readonly onCancel: () => void;
}

export function Outgoing({ partner, onCancel }: OutgoingProps) {
  const { t } = useSpeech();
  return (
    <section aria-label={t("call.calling", { name: partner.name })} data-testid="outgoing-call" className={CARD}>
      <div className="flex flex-wrap items-center gap-x-4 gap-y-3">
        <RingingFace hue={partner.hue} />
        <div className="min-w-0 flex-1 basis-40">
          <p className="text-lg leading-snug font-bold [overflow-wrap:anywhere]">{t("call.calling", { name: partner.name })}</p>
          <p className="text-sm text-soft">{t("call.callingLine")}</p>
        </div>
        <Button data-testid="cancel-call" className="grow sm:grow-0" onClick={onCancel}>
          {t("app.cancel")}
        </Button>
      </div>
    </section>
  );
}
