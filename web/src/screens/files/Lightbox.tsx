import { type PointerEvent, useEffect, useEffectEvent, useLayoutEffect, useRef, useState } from "react";
import type { SharedFile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { MessageView } from "../../model";
import { IconButton } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { CLOSEST, fitted, type Look, moved, type Point, type Size, swiped, WHOLE, zoomed } from "../../ui/zoom";
import { useStore } from "../../useStore";
import { useVisavis } from "../useVisavis";
import { DownloadLink } from "./DownloadLink";
import { useAddress, useUncovered } from "./useFiles";

interface Props {
  readonly messages: readonly MessageView[];
  /** The file to look at. */
  readonly id: string;
  readonly partnerName: string;
  readonly onLook: (id: string) => void;
  readonly onClose: () => void;
}

const CONTROL = "on-picture size-12 rounded-full hover:bg-raised hover:text-ink";
const STEP = 1.5;
const TAP_ZOOM = 2.5;
const PAN_PX = 60;
const TAP_MS = 300;
const TAP_PX = 10;

const pictureOf = ({ file, deleted }: MessageView): SharedFile | null => (file?.kind === "picture" && !deleted ? file : null);
const apart = (a: Point, b: Point) => Math.hypot(a.x - b.x, a.y - b.y);

/** The pictures of a conversation one by one, as large as the window; closer by wheel, pinch, double tap or keys. */
export function Lightbox({ messages, id, partnerName, onLook, onClose }: Props) {
  const { t, tag } = useSpeech();
  const { gone } = useStore(useVisavis().files);
  const uncovered = useUncovered();
  const dialog = useRef<HTMLDialogElement>(null);
  const list = messages.filter((message) => {
    const file = pictureOf(message);
    return file !== null && !gone.has(file.id) && uncovered(message);
  });
  const index = list.findIndex(({ file }) => file?.id === id);
  const message = list[index] ?? null;
  const file = message?.file ?? null;
  const missing = file === null;

  useLayoutEffect(() => {
    const element = dialog.current;
    if (element === null || element.open) return;
    const before = document.activeElement;
    element.showModal();
    element.querySelector<HTMLElement>("[data-testid=lightbox-close]")?.focus({ preventScroll: true });
    return () => {
      element.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, []);

  // Deleted, expired or covered meanwhile.
  const left = useEffectEvent(onClose);
  useEffect(() => {
    if (missing) left();
  }, [missing]);

  function step(by: 1 | -1) {
    const next = list[index + by]?.file;
    if (next !== undefined && next !== null) onLook(next.id);
  }

  return (
    <dialog
      ref={dialog}
      aria-label={t("files.viewer")}
      data-testid="lightbox"
      data-file={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      className="stage fixed inset-0 m-0 size-full max-h-none max-w-none overflow-clip"
    >
      {message !== null && file !== null && (
        <Viewer
          key={file.id}
          file={file}
          alt={message.mine ? t("files.mine.picture") : t("files.from.picture", { name: partnerName })}
          onStep={step}
          onClose={onClose}
        />
      )}
      {list.length > 1 && (
        <>
          <p aria-live="polite" className="on-picture pointer-events-none absolute start-3 top-[max(0.75rem,env(safe-area-inset-top))] inline-flex min-h-10 items-center rounded-full px-4 text-sm font-medium tabular-nums">
            {t("files.viewerOf", { n: index + 1, all: new Intl.NumberFormat(tag).format(list.length) })}
          </p>
          <IconButton
            label={t("files.previous")}
            data-testid="lightbox-previous"
            aria-disabled={index <= 0}
            className={`${CONTROL} absolute start-3 top-1/2 -translate-y-1/2 aria-disabled:opacity-40`}
            onClick={() => step(-1)}
          >
            <Icon name="previous" className="size-6" />
          </IconButton>
          <IconButton
            label={t("files.next")}
            data-testid="lightbox-next"
            aria-disabled={index >= list.length - 1}
            className={`${CONTROL} absolute end-3 top-1/2 -translate-y-1/2 aria-disabled:opacity-40`}
            onClick={() => step(1)}
          >
            <Icon name="next" className="size-6" />
          </IconButton>
        </>
      )}
    </dialog>
  );
}

interface ViewerProps {
  readonly file: SharedFile;
  readonly alt: string;
  readonly onStep: (by: 1 | -1) => void;
  readonly onClose: () => void;
}

function Viewer({ file, alt, onStep, onClose }: ViewerProps) {
  const { t, dir } = useSpeech();
  const { url, download, failed, onError, again } = useAddress(file.id, "main", true);
  const thumb = useAddress(file.id, "thumb", true);
  const frame = useRef<HTMLDivElement>(null);
  const close = useRef<HTMLButtonElement>(null);
  const pointers = useRef(new Map<number, Point>());
  const began = useRef<{ readonly at: number; readonly from: Point; readonly onPicture: boolean } | null>(null);
  const tapped = useRef<{ readonly at: number; readonly where: Point } | null>(null);
  const [room, setRoom] = useState<Size>({ width: window.innerWidth, height: window.innerHeight });
  const [natural, setNatural] = useState<Size>({ width: file.width ?? 0, height: file.height ?? 0 });
  const [look, setLook] = useState<Look>(WHOLE);
  /** What a finger does to the whole picture before it lets go. */
  const [drag, setDrag] = useState<Point | null>(null);
  const [gliding, setGliding] = useState(true);
  const shown = fitted(natural, room);

  useLayoutEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const fit = () => setRoom({ width: element.clientWidth, height: element.clientHeight });
    fit();
    if (!("ResizeObserver" in window)) return;
    const observer = new ResizeObserver(fit);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  // The picture that had the focus inside is gone with the step to the next one.
  useEffect(() => {
    if (document.activeElement === null || document.activeElement === document.body || document.activeElement.tagName === "DIALOG")
      close.current?.focus({ preventScroll: true });
  }, []);

  function zoom(factor: number, at: Point = { x: 0, y: 0 }, glides = true) {
    setGliding(glides);
    setLook((now) => zoomed(now, factor, at, shown, room));
  }

  /** From the middle of the frame. */
  function place(event: { readonly clientX: number; readonly clientY: number }): Point {
    const box = frame.current?.getBoundingClientRect();
    if (box === undefined) return { x: 0, y: 0 };
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  }

  const onWheel = useEffectEvent((event: WheelEvent) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), place(event), false);
  });
  const onKey = useEffectEvent((event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = dir === "ltr" ? 1 : -1;
    const pan = { ArrowLeft: { x: PAN_PX, y: 0 }, ArrowRight: { x: -PAN_PX, y: 0 }, ArrowUp: { x: 0, y: PAN_PX }, ArrowDown: { x: 0, y: -PAN_PX } }[event.key];
    if (event.key === "+" || event.key === "=") zoom(STEP);
    else if (event.key === "-") zoom(1 / STEP);
    else if (event.key === "0") zoom(0);
    else if (event.key === "PageDown") onStep(1);
    else if (event.key === "PageUp") onStep(-1);
    else if (pan !== undefined && look.scale > 1) {
      setGliding(true);
      setLook((now) => moved(now, pan, shown, room));
    } else if (event.key === "ArrowRight") onStep(on === 1 ? 1 : -1);
    else if (event.key === "ArrowLeft") onStep(on === 1 ? -1 : 1);
    else return;
    event.preventDefault();
  });
  useEffect(() => {
    const element = frame.current;
    const wheel = (event: WheelEvent) => onWheel(event);
    const key = (event: KeyboardEvent) => onKey(event);
    // A wheel that only zooms must say so beforehand.
    element?.addEventListener("wheel", wheel, { passive: false });
    window.addEventListener("keydown", key);
    return () => {
      element?.removeEventListener("wheel", wheel);
      window.removeEventListener("keydown", key);
    };
  }, []);

  function pointerMove(event: PointerEvent<HTMLDivElement>) {
    const last = pointers.current.get(event.pointerId);
    if (last === undefined) return;
    const here = place(event);
    const other = [...pointers.current].find(([one]) => one !== event.pointerId)?.[1];
    pointers.current.set(event.pointerId, here);
    setGliding(false);
    if (other !== undefined) {
      const middle = { x: (here.x + other.x) / 2, y: (here.y + other.y) / 2 };
      const by = { x: (here.x - last.x) / 2, y: (here.y - last.y) / 2 };
      const factor = apart(here, other) / Math.max(1, apart(last, other));
      setLook((now) => moved(zoomed(now, factor, middle, shown, room), by, shown, room));
    } else if (look.scale > 1) setLook((now) => moved(now, { x: here.x - last.x, y: here.y - last.y }, shown, room));
    else if (began.current !== null) {
      const by = { x: here.x - began.current.from.x, y: here.y - began.current.from.y };
      if (event.pointerType !== "mouse" && Math.hypot(by.x, by.y) > TAP_PX) setDrag(by);
    }
  }

  function pointerUp(event: PointerEvent<HTMLDivElement>) {
    const start = began.current;
    const alone = pointers.current.size === 1;
    pointers.current.delete(event.pointerId);
    if (!alone || start === null) return;
    began.current = null;
    setGliding(true);
    setDrag(null);
    const here = place(event);
    const by = { x: here.x - start.from.x, y: here.y - start.from.y };
    if (Math.hypot(by.x, by.y) <= TAP_PX) {
      const twice = tapped.current !== null && event.timeStamp - tapped.current.at < TAP_MS && apart(tapped.current.where, here) < 3 * TAP_PX;
      tapped.current = twice ? null : { at: event.timeStamp, where: here };
      if (!start.onPicture) onClose();
      else if (twice) zoom(look.scale > 1 ? 0 : TAP_ZOOM, here);
    } else if (look.scale === 1 && event.pointerType !== "mouse") {
      const meant = swiped(by, dir);
      if (meant === "close") onClose();
      else if (meant !== null) onStep(meant === "next" ? 1 : -1);
    }
  }

  return (
    <>
      {/* By keyboard there are the arrows, plus, minus and Esc, and the buttons. */}
      <div
        ref={frame}
        data-scale={Math.round(look.scale * 100) / 100}
        className={`absolute inset-0 flex touch-none items-center justify-center overflow-clip select-none ${look.scale > 1 ? "cursor-grab" : ""}`}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          const here = place(event);
          pointers.current.set(event.pointerId, here);
          const onPicture = event.target instanceof HTMLImageElement;
          began.current = pointers.current.size === 1 ? { at: event.timeStamp, from: here, onPicture } : null;
          if (began.current === null) setDrag(null);
        }}
        onPointerMove={pointerMove}
        onPointerUp={pointerUp}
        onPointerCancel={(event) => {
          pointers.current.delete(event.pointerId);
          began.current = null;
          setDrag(null);
        }}
      >
        {failed ? (
          <p role="alert" className="flex flex-col items-center gap-3 p-6">
            {t("files.failed")}
            <button type="button" className="inline-flex min-h-11 items-center gap-2 font-semibold underline underline-offset-3" onPointerDown={(event) => event.stopPropagation()} onClick={again}>
              <Icon name="retry" />
              {t("files.again")}
            </button>
          </p>
        ) : (
          <div
            className={`relative shrink-0 ${gliding ? "transition-transform duration-200" : ""}`}
            style={{
              width: shown.width,
              height: shown.height,
              transform: `translate(${look.x + (drag?.x ?? 0)}px, ${look.y + (drag?.y ?? 0)}px) scale(${look.scale})`,
              opacity: drag === null ? 1 : 1 - Math.min(0.5, Math.abs(drag.y) / 400),
            }}
          >
            {thumb.url !== null && <img src={thumb.url} alt="" draggable={false} className="absolute inset-0 size-full object-contain" />}
            {url !== null && (
              <img
                src={url}
                alt={alt}
                draggable={false}
                onError={onError}
                onLoad={({ currentTarget }) => {
                  if (natural.width === 0) setNatural({ width: currentTarget.naturalWidth, height: currentTarget.naturalHeight });
                }}
                className="absolute inset-0 size-full object-contain"
              />
            )}
          </div>
        )}
      </div>
      <div className="absolute end-3 top-[max(0.75rem,env(safe-area-inset-top))] flex gap-1.5">
        <DownloadLink file={file} href={download} className={`text-soft ${CONTROL}`} />
        <IconButton ref={close} label={t("app.close")} data-testid="lightbox-close" className={CONTROL} onClick={onClose}>
          <Icon name="close" className="size-6" />
        </IconButton>
      </div>
      <div className="absolute inset-x-0 bottom-[max(1rem,env(safe-area-inset-bottom))] mx-auto flex w-fit gap-1.5">
        <IconButton label={t("files.zoomOut")} data-testid="lightbox-zoom-out" aria-disabled={look.scale <= 1} className={`${CONTROL} aria-disabled:opacity-50`} onClick={() => zoom(1 / STEP)}>
          <Icon name="zoomOut" className="size-6" />
        </IconButton>
        <IconButton label={t("files.zoomIn")} data-testid="lightbox-zoom-in" aria-disabled={look.scale >= CLOSEST} className={`${CONTROL} aria-disabled:opacity-50`} onClick={() => zoom(STEP)}>
          <Icon name="zoomIn" className="size-6" />
        </IconButton>
      </div>
    </>
  );
}
