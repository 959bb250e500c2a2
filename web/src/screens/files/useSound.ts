import { type RefObject, useEffect, useEffectEvent, useRef, useState } from "react";

export interface Sound {
  readonly playing: boolean;
  /** Asked to play, and not there yet. */
  readonly waiting: boolean;
  /** Seconds. */
  readonly at: number;
  readonly toggle: () => void;
  readonly seek: (to: number) => void;
  /** To be put on the element. */
  readonly on: {
    readonly onPlay: () => void;
    readonly onPause: () => void;
    readonly onEnded: () => void;
    readonly onTimeUpdate: () => void;
    readonly onLoadedMetadata: () => void;
  };
}

/** An `<audio>` with a face of our own. Its address may come only after it was asked to play, or change under way. */
export function useSound(element: RefObject<HTMLAudioElement | null>, url: string | null, speed: number): Sound {
  const from = useRef<number | null>(null);
  const [playing, setPlaying] = useState(false);
  const [wanted, setWanted] = useState(false);
  const [at, setAt] = useState(0);

  function start() {
    element.current?.play().catch((reason: unknown) => {
      // Another address came in between: it is asked again.
      if (!(reason instanceof DOMException && reason.name === "AbortError")) setWanted(false);
    });
  }

  const arrived = useEffectEvent(() => {
    if (wanted) start();
  });
  useEffect(() => {
    if (url !== null) arrived();
  }, [url]);

  useEffect(() => {
    if (element.current !== null) element.current.playbackRate = speed;
  }, [element, speed, url, playing]);

  // Smooth to the eye, where the browser itself tells only some times a second.
  useEffect(() => {
    if (!playing) return;
    let frame = 0;
    const tick = () => {
      setAt(element.current?.currentTime ?? 0);
      frame = requestAnimationFrame(tick);
    };
    frame = requestAnimationFrame(tick);
    return () => cancelAnimationFrame(frame);
  }, [element, playing]);

  return {
    playing,
    waiting: wanted && !playing,
    at,
    toggle() {
      if (playing || wanted) {
        setWanted(false);
        element.current?.pause();
        return;
      }
      setWanted(true);
      if (url !== null) start();
    },
    seek(to) {
      setAt(to);
      const audio = element.current;
      if (audio !== null && audio.readyState > 0) audio.currentTime = to;
      else from.current = to;
    },
    on: {
      onPlay: () => setPlaying(true),
      onPause() {
        setPlaying(false);
        setWanted(false);
      },
      onEnded() {
        setPlaying(false);
        setWanted(false);
        setAt(0);
        if (element.current !== null) element.current.currentTime = 0;
      },
      onTimeUpdate() {
        const audio = element.current;
        if (audio !== null && audio.readyState > 0 && !audio.ended) {
          setAt(audio.currentTime);
          if (!audio.seeking) from.current = audio.currentTime;
        }
      },
      onLoadedMetadata() {
        const audio = element.current;
        if (audio === null) return;
        audio.playbackRate = speed;
        if (from.current !== null && from.current > 0) audio.currentTime = from.current;
      },
    },
  };
}

/** Whatever is marked `data-one` gives way when another begins. */
export function useOneAtATime(): void {
  useEffect(() => {
    const onPlay = ({ target }: Event) => {
      if (!(target instanceof HTMLMediaElement) || !("one" in target.dataset)) return;
      for (const other of document.querySelectorAll<HTMLMediaElement>("[data-one]")) if (other !== target && !other.paused) other.pause();
    };
    document.addEventListener("play", onPlay, true);
    return () => document.removeEventListener("play", onPlay, true);
  }, []);
}
