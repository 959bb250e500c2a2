import { createContext, type RefObject, use, useEffect, useState } from "react";
import type { SharedFile } from "../../contract.gen";
import type { FilePlace, MessageView } from "../../model";
import { useStore } from "../../useStore";
import { useVisavis } from "../useVisavis";

/** What the files of one conversation share with each other on screen. */
export interface Shelf {
  /** Covered again by hand, although others show at once. */
  readonly covered: ReadonlySet<string>;
  readonly cover: (id: string, covered: boolean) => void;
  readonly speed: number;
  readonly setSpeed: (speed: number) => void;
  readonly look: (id: string) => void;
}

export const ShelfContext = createContext<Shelf | null>(null);

export function useShelf(): Shelf {
  const shelf = use(ShelfContext);
  if (shelf === null) throw new Error("no shelf provided");
  return shelf;
}

type Shown = Pick<MessageView, "mine" | "file">;

/** Whether a picture or video is to be seen, for any message. */
export function useUncovered(): (message: Shown) => boolean {
  const visavis = useVisavis();
  const { shown, always } = useStore(visavis.files);
  const { coverPictures } = useStore(visavis.settings);
  const { covered } = useShelf();
  return ({ mine, file }) => {
    if (mine || file === null) return true;
    return shown.has(file.id) || ((always || !coverPictures) && !covered.has(file.id));
  };
}

/** Whether it is not to be had any more: by the server's clock, which this device's may be far from. */
export function useGone(file: SharedFile): boolean {
  return useStore(useVisavis().files).gone.has(file.id);
}

/** Whether it has come near what is on screen; stays so. */
export function useNear(element: RefObject<Element | null>): boolean {
  const [near, setNear] = useState(() => !("IntersectionObserver" in window));
  useEffect(() => {
    const target = element.current;
    if (near || target === null) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some(({ isIntersecting }) => isIntersecting)) setNear(true);
      },
      { root: target.closest("[role=log]"), rootMargin: "100% 0px" },
    );
    observer.observe(target);
    return () => observer.disconnect();
  }, [element, near]);
  return near;
}

const TRIES = 2;

interface Address {
  readonly url: string | null;
  readonly download: string | null;
  /** It did not load, again and again: `again` is for the guest to press. */
  readonly failed: boolean;
  readonly onError: () => void;
  readonly again: () => void;
}

/**
 * Where to fetch one thing of a file once it is `wanted`. What has begun with one address stays with it, though a new
 * one comes: a player must not start over.
 */
export function useAddress(id: string, which: keyof FilePlace, wanted: boolean): Address {
  const visavis = useVisavis();
  const place = useStore(visavis.files).places.get(id) ?? null;
  const now = place?.[which] ?? place?.main ?? null;
  const [held, setHeld] = useState<string | null>(null);
  const [bad, setBad] = useState<string | null>(null);
  const [tries, setTries] = useState(0);
  const unknown = place === null;
  if (wanted && held === null && now !== null && now !== bad) setHeld(now);

  useEffect(() => {
    if (wanted && unknown) void visavis.openFile(id);
  }, [visavis, id, wanted, unknown]);

  const renew = () => {
    setBad(held);
    setHeld(null);
    void visavis.fileFailed(id);
  };
  return {
    url: held,
    download: wanted ? (place?.download ?? null) : null,
    failed: tries >= TRIES,
    onError() {
      setTries(tries + 1);
      if (tries + 1 < TRIES) renew();
    },
    again() {
      setTries(0);
      renew();
    },
  };
}
