/** Where a picture lies in its frame while one looks closer. Shifts are from the frame's centre, in its pixels. */
export interface Look {
  /** 1: all of it is seen. */
  readonly scale: number;
  readonly x: number;
  readonly y: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

export const WHOLE: Look = { scale: 1, x: 0, y: 0 };
export const CLOSEST = 8;
/** A tiny picture is not blown up to a wall. */
const MOST_ENLARGED = 2;

const within = (value: number, most: number) => (most === 0 ? 0 : Math.max(-most, Math.min(most, value)));

/** How large all of a picture is shown in a frame. */
export function fitted(picture: Size, frame: Size): Size {
  if (picture.width <= 0 || picture.height <= 0) return { width: 0, height: 0 };
  const scale = Math.min(frame.width / picture.width, frame.height / picture.height, MOST_ENLARGED);
  return { width: picture.width * scale, height: picture.height * scale };
}

/** No further than its own edges: what fits is in the middle. */
export function kept(look: Look, shown: Size, frame: Size): Look {
  if (look.scale <= 1) return WHOLE;
  return {
    scale: look.scale,
    x: within(look.x, Math.max(0, (shown.width * look.scale - frame.width) / 2)),
    y: within(look.y, Math.max(0, (shown.height * look.scale - frame.height) / 2)),
  };
}

/** Closer by a factor, with what lies at `at` staying there. */
export function zoomed(look: Look, factor: number, at: Point, shown: Size, frame: Size): Look {
  const scale = Math.max(1, Math.min(CLOSEST, look.scale * factor));
  const grown = scale / look.scale;
  return kept({ scale, x: at.x - (at.x - look.x) * grown, y: at.y - (at.y - look.y) * grown }, shown, frame);
}

export function moved(look: Look, by: Point, shown: Size, frame: Size): Look {
  return kept({ ...look, x: look.x + by.x, y: look.y + by.y }, shown, frame);
}

const SWIPE_PX = 56;
const AWAY_PX = 110;

/** What a finger meant that moved this far over the whole picture. */
export function swiped(by: Point, direction: "ltr" | "rtl"): "next" | "previous" | "close" | null {
  if (Math.abs(by.x) > SWIPE_PX && Math.abs(by.x) > Math.abs(by.y) * 1.2)
    return by.x < 0 === (direction === "ltr") ? "next" : "previous";
  return Math.abs(by.y) > AWAY_PX && Math.abs(by.y) > Math.abs(by.x) * 1.2 ? "close" : null;
}
