import { useEffect, useEffectEvent, useRef } from "react";

interface Props {
  readonly stream: MediaStream;
  /** Where it is heard; null as the system chooses. */
  readonly speaker: string | null;
  /** Counts up whenever somebody asked to hear it: then the browser lets it play. */
  readonly asked: number;
  readonly testid?: string;
  /** Whether the browser refuses to play before a touch. */
  readonly onHeldBack: (heldBack: boolean) => void;
}

/** The sound of a stream; nothing to see. */
export function AudioOut({ stream, speaker, asked, testid, onHeldBack }: Props) {
  const audio = useRef<HTMLAudioElement>(null);
  const heldBack = useEffectEvent(onHeldBack);

  useEffect(() => {
    const element = audio.current;
    if (element === null) return;
    if (element.srcObject !== stream) element.srcObject = stream;
    let wanted = true;
    element.play().then(
      () => wanted && heldBack(false),
      // Any other refusal is of a stream that has just been replaced.
      (reason: unknown) => wanted && reason instanceof DOMException && reason.name === "NotAllowedError" && heldBack(true),
    );
    return () => {
      wanted = false;
    };
  }, [stream, asked]);

  useEffect(() => {
    const element = audio.current;
    if (element === null || !("setSinkId" in element)) return;
    // A speaker that was unplugged: what the system chooses is better than silence.
    element.setSinkId(speaker ?? "").catch(() => element.setSinkId("").catch(() => undefined));
  }, [speaker]);

  // Somebody speaks right now: there are no captions to show.
  // eslint-disable-next-line jsx-a11y/media-has-caption
  return <audio ref={audio} data-testid={testid} autoPlay className="hidden" />;
}
