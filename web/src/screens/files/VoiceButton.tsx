import { type PointerEvent, useEffect, useEffectEvent, useRef } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { VoiceView } from "../../model";
import { Icon } from "../../ui/Icon";
import { useAnnounce } from "../announce";
import { useVisavis } from "../useVisavis";

interface Props {
  readonly phase: VoiceView["phase"];
  /** Being held: how far it has slid towards being cancelled, 0 to 1. */
  readonly onHeld: (slid: number | null) => void;
}

/** Held at least so long, letting go is the end of it. */
const HELD_MS = 450;
const CANCELS_PX = 96;
/** A click this soon after a pointer was let go is the same press. */
const SAME_PRESS_MS = 100;

/**
 * Held, it records until one lets go, and sliding away cancels; pressed briefly, it records until the next press. One
 * button all the while: a finger stays on what it has touched.
 */
export function VoiceButton({ phase, onHeld }: Props) {
  const { t, dir } = useSpeech();
  const visavis = useVisavis();
  const announce = useAnnounce();
  const press = useRef<{ readonly x: number; readonly at: number; readonly starts: boolean } | null>(null);
  /** When a press was answered whose click is still to come. */
  const answered = useRef(-Infinity);
  const idle = phase === "idle";

  function slid(event: PointerEvent, x: number): number {
    const by = (event.clientX - x) * (dir === "ltr" ? -1 : 1);
    return Math.max(0, Math.min(1, by / CANCELS_PX));
  }

  function over() {
    press.current = null;
    onHeld(null);
  }

  // A recording that ends by itself takes the button from under the finger.
  const gone = useEffectEvent(() => onHeld(null));
  useEffect(() => () => gone(), []);

  return (
    <button
      type="button"
      data-testid={idle ? "voice-record" : "voice-stop"}
      aria-label={t(idle ? "voice.record" : "voice.stop")}
      title={t(idle ? "voice.hint" : "voice.stop")}
      className={`inline-flex size-12 shrink-0 touch-none items-center justify-center rounded-full transition-colors duration-150 select-none ${idle ? "bg-accent text-on-accent hover:bg-accent-strong" : "border border-edge bg-surface text-stop hover:bg-raised"}`}
      onContextMenu={(event) => event.preventDefault()}
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        press.current = { x: event.clientX, at: event.timeStamp, starts: idle };
        if (!idle) return;
        onHeld(0);
        void visavis.startVoice();
      }}
      onPointerMove={(event) => {
        const now = press.current;
        if (now?.starts !== true || event.timeStamp - now.at < HELD_MS) return;
        const share = slid(event, now.x);
        if (share < 1) {
          onHeld(share);
          return;
        }
        over();
        visavis.cancelVoice();
        announce(t("voice.cancelled"));
      }}
      onPointerUp={(event) => {
        const now = press.current;
        answered.current = event.timeStamp;
        over();
        if (now === null) return;
        // While the browser still asks, nobody can be expected to hold on.
        const held = event.timeStamp - now.at >= HELD_MS && phase === "recording";
        if (!now.starts || held) void visavis.stopVoice();
      }}
      onPointerCancel={over}
      onClick={(event) => {
        const pointed = event.timeStamp - answered.current < SAME_PRESS_MS;
        if (!pointed) void (idle ? visavis.startVoice() : visavis.stopVoice());
      }}
    >
      <Icon name={idle ? "voice" : "stop"} className="size-6" />
    </button>
  );
}
