import { type ReactNode, type RefObject, useId, useLayoutEffect, useRef } from "react";

export interface TriggerProps {
  readonly ref: RefObject<HTMLButtonElement | null>;
  readonly popoverTarget: string;
  readonly "aria-haspopup": "dialog" | "menu";
  readonly "aria-expanded": boolean;
  readonly "data-state": "open" | "closed";
}

interface Props {
  readonly open: boolean;
  readonly onOpenChange: (open: boolean) => void;
  readonly label: string;
  readonly kind?: "dialog" | "menu";
  readonly side?: "above" | "below";
  /** Makes the button that opens it, with these on it. */
  readonly trigger: (props: TriggerProps) => ReactNode;
  readonly children: ReactNode;
}

const GAP_PX = 6;
const EDGE_PX = 8;

/** Beside its button, on whichever side has room, inside the window. */
function place(surface: HTMLElement, button: HTMLElement, side: "above" | "below"): void {
  const anchor = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = surface;
  const above = anchor.top - GAP_PX - height;
  const below = anchor.bottom + GAP_PX;
  const fitsBelow = below + height <= window.innerHeight - EDGE_PX;
  const top = side === "above" ? (above >= EDGE_PX || !fitsBelow ? above : below) : fitsBelow ? below : above;
  const left = getComputedStyle(button).direction === "rtl" ? anchor.left : anchor.right - width;
  const within = (value: number, most: number) => Math.max(EDGE_PX, Math.min(value, most - EDGE_PX));
  surface.style.top = `${within(top, window.innerHeight - height)}px`;
  surface.style.left = `${within(left, window.innerWidth - width)}px`;
}

/**
 * A small surface beside its button: the browser's own popover, which closes on Esc and on a press elsewhere and
 * lies above everything. Only its place is computed here.
 */
export function Pop({ open, onOpenChange, label, kind = "dialog", side = "above", trigger, children }: Props) {
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);
  const surface = useRef<HTMLDivElement>(null);

  useLayoutEffect(() => {
    const element = surface.current;
    const anchor = button.current;
    if (element === null || anchor === null) return;
    if (!open) {
      // Does nothing if the browser closed it already.
      if ("hidePopover" in element) element.hidePopover();
      return;
    }
    const fit = () => place(element, anchor, side);
    fit();
    element.style.visibility = "visible";
    // Its content may come later, or change.
    const observer = new ResizeObserver(fit);
    observer.observe(element);
    // A phone's keyboard goes away as this opens, and takes the button with it.
    window.addEventListener("resize", fit);
    element.querySelector<HTMLElement>("[role=menuitem]:not(:disabled), [tabindex='0'], button, select")?.focus();
    return () => {
      observer.disconnect();
      window.removeEventListener("resize", fit);
      element.style.visibility = "";
      if (element.contains(document.activeElement) || document.activeElement === document.body) anchor.focus();
    };
  }, [open, side]);

  return (
    <>
      {trigger({
        ref: button,
        popoverTarget: id,
        "aria-haspopup": kind,
        "aria-expanded": open,
        "data-state": open ? "open" : "closed",
      })}
      <div
        ref={surface}
        id={id}
        popover="auto"
        role={kind}
        aria-label={label}
        onToggle={(event) => {
          if (event.target === event.currentTarget) onOpenChange(event.newState === "open");
        }}
        className="invisible fixed inset-auto m-0 max-h-[calc(100dvh-1rem)] overflow-y-auto rounded-2xl border border-line bg-surface p-1.5 text-ink shadow-float"
      >
        {open && children}
      </div>
    </>
  );
}
