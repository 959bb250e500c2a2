import { type ReactNode, useEffect, useId, useRef } from "react";
import { IconButton } from "./Button";
import { Icon } from "./Icon";

interface Props {
  readonly title: string;
  readonly closeLabel: string;
  readonly onClose: () => void;
  readonly children: ReactNode;
  /** Small ones ask one thing; wide ones hold a form. */
  readonly wide?: boolean;
}

/**
 * The browser's own modal: it keeps the focus inside, makes the rest inert, closes on Esc and gives the focus
 * back. Mounted means open. On a phone it is a sheet at the bottom, under the thumb.
 */
export function Dialog({ title, closeLabel, onClose, children, wide = false }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const pressed = useRef<EventTarget | null>(null);

  useEffect(() => {
    const element = dialog.current;
    if (element === null || element.open) return;
    element.showModal();
    return () => element.close();
  }, []);

  return (
    // The click on the backdrop is a convenience; Esc and the close button do the same by keyboard.
    // eslint-disable-next-line jsx-a11y/click-events-have-key-events, jsx-a11y/no-noninteractive-element-interactions
    <dialog
      ref={dialog}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onPointerDown={(event) => {
        pressed.current = event.target;
      }}
      onClick={(event) => {
        // Not where a press inside, as of somebody who marks words, is let go outside.
        if (event.target === dialog.current && pressed.current === dialog.current) onClose();
      }}
      className={`mx-auto mt-auto mb-0 max-h-[92dvh] w-full max-w-full overflow-y-auto overscroll-contain rounded-t-card bg-surface text-ink shadow-float sm:my-auto sm:rounded-card ${wide ? "sm:max-w-xl" : "sm:max-w-md"} animate-arrive`}
    >
      <div className="px-6 pt-5 pb-[max(1.5rem,env(safe-area-inset-bottom))]">
        <div className="flex items-start justify-between gap-3">
          <h2 id={titleId} className="pt-1.5 text-xl font-bold">
            {title}
          </h2>
          <IconButton label={closeLabel} onClick={onClose} className="-me-2 size-11 rounded-xl">
            <Icon name="close" />
          </IconButton>
        </div>
        {children}
      </div>
    </dialog>
  );
}
