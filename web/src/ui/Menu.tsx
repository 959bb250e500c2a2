import { type KeyboardEvent, type ReactNode, useState } from "react";
import { Icon, type IconName } from "./Icon";
import { Pop, type TriggerProps } from "./Pop";

interface Entry {
  readonly label: string;
  readonly icon: IconName;
  readonly disabled?: boolean;
  readonly testid?: string;
  readonly onSelect: () => void;
}

interface Props {
  readonly label: string;
  readonly trigger: (props: TriggerProps) => ReactNode;
  readonly entries: readonly Entry[];
}

export function Menu({ label, trigger, entries }: Props) {
  const [open, setOpen] = useState(false);

  function keyDown(event: KeyboardEvent<HTMLDivElement>) {
    const items = Array.from(event.currentTarget.querySelectorAll<HTMLButtonElement>("button:not(:disabled)"));
    const here = items.findIndex((item) => item === document.activeElement);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Tab") setOpen(false);
    if (to === undefined) return;
    event.preventDefault();
    items.at(to % items.length)?.focus();
  }

  return (
    <Pop open={open} onOpenChange={setOpen} label={label} kind="menu" side="below" trigger={trigger}>
      {/* Part of the menu around it; it only steers the focus among the entries. */}
      <div role="presentation" onKeyDown={keyDown} className="flex min-w-48 flex-col">
        {entries.map((entry) => (
          <button
            key={entry.label}
            type="button"
            role="menuitem"
            data-testid={entry.testid}
            tabIndex={-1}
            disabled={entry.disabled}
            onClick={() => {
              setOpen(false);
              entry.onSelect();
            }}
            className="flex min-h-11 items-center gap-3 rounded-xl px-3 text-start hover:bg-raised focus-visible:bg-raised disabled:text-soft disabled:hover:bg-transparent"
          >
            <Icon name={entry.icon} className="size-5 text-soft" />
            {entry.label}
          </button>
        ))}
      </div>
    </Pop>
  );
}
