import { type RefObject, useEffect, useRef, useState } from "react";

interface Props {
  readonly stream: MediaStream;
  readonly label: string;
  readonly testid?: string | undefined;
  /** As in a mirror: only ever for one's own camera. */
  readonly mirrored?: boolean;
  /** Few blocks of colour, shown as a soft impression. */
  readonly soft?: boolean;
  /** Never cut: every corner of a screen counts. */
  readonly whole?: boolean;
  readonly videoRef?: RefObject<HTMLVideoElement | null> | undefined;
}

/** Filling the tile may cut off this much of a picture; a portrait on a wide tile would lose the face. */
const LEAST_SEEN = 0.4;

/** A moving picture without its sound, filling its tile as far as that leaves enough of it to see. */
export function VideoTile({ stream, label, testid, mirrored = false, soft = false, whole = false, videoRef }: Props) {
  const own = useRef<HTMLVideoElement>(null);
  const ref = videoRef ?? own;
  const [fills, setFills] = useState(true);
  const [shows, setShows] = useState(false);

  useEffect(() => {
    const video = ref.current;
    if (video === null) return;
    video.srcObject = stream;
    return () => {
      video.srcObject = null;
    };
  }, [ref, stream]);

  useEffect(() => {
    const video = ref.current;
    if (video === null || !("ResizeObserver" in window)) return;
    const fit = () => {
      const picture = video.videoWidth / video.videoHeight;
      const tile = video.clientWidth / video.clientHeight;
      if (picture > 0 && tile > 0) setFills(Math.min(picture / tile, tile / picture) >= LEAST_SEEN);
    };
    const observer = new ResizeObserver(fit);
    observer.observe(video);
    video.addEventListener("resize", fit);
    return () => {
      observer.disconnect();
      video.removeEventListener("resize", fit);
    };
  }, [ref]);

  return (
    <video
      ref={ref}
      data-testid={testid}
      aria-label={label}
      autoPlay
      playsInline
      muted
      onLoadedData={() => setShows(true)}
      onEmptied={() => setShows(false)}
      className={`absolute transition-opacity duration-300 ${soft ? "soft-picture" : "inset-0 size-full"} ${shows ? "" : "opacity-0"} ${(fills || soft) && !whole ? "object-cover" : "object-contain"} ${mirrored ? "mirror" : ""}`}
    />
  );
}
