import { type KeyboardEvent, useRef, useState } from "react";
import { Icon } from "./Icon";

interface Chip {
  readonly value: string;
  readonly label: string;
  readonly removeLabel: string;
}

interface Props {
  readonly id: string;
  readonly chips: readonly Chip[];
  readonly placeholder: string;
  readonly describedBy: string;
  readonly full: boolean;
  readonly maxLength: number;
  /** Returns whether it was taken; what was refused stays in the field. */
  readonly onAdd: (text: string) => boolean;
  readonly onRemove: (value: string) => void;
  /** Enter in the empty field. */
  readonly onEmptyEnter: () => void;
 
}

const SEPARATOR = /[,،;\n]/;

/** Words as chips: type, Enter or a comma adds, Backspace in the empty field takes the last one back. */
export function Chips({ id, chips, placeholder, describedBy, full, maxLength, onAdd, onRemove, onEmptyEnter }: Props) {
  const [text, setText] = useState("");
  const field = useRef<HTMLInputElement>(null);

  /** Adds every finished word and keeps what was refused. */
  function take(words: readonly string[]): boolean {
    let all = true;
    for (const word of words) if (word.trim() !== "" && !onAdd(word)) all = false;
    return all;
  }

  function change(value: string) {
    const words = value.split(SEPARATOR);
    const unfinished = words.pop() ?? "";
    if (words.length === 0) setText(value);
    else setText(take(words) ? unfinished : value.replace(/[,،;\n]+$/, ""));
  }

  function keyDown(event: KeyboardEvent<HTMLInputElement>) {
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Enter") {
      event.preventDefault();
      if (text.trim() === "") onEmptyEnter();
      else if (take([text])) setText("");
    } else if (event.key === "Backspace" && text === "") {
      const last = chips.at(-1);
      if (last !== undefined) onRemove(last.value);
    }
  }

  return (
    <div className="flex flex-wrap items-center gap-2 rounded-xl border border-edge bg-surface p-2 focus-within:outline-2.5 focus-within:outline-offset-1 focus-within:outline-accent-strong">
      {chips.length > 0 && (
        <ul className="contents">
          {chips.map((chip) => (
            <li key={chip.value} className="inline-flex max-w-full items-center rounded-lg bg-accent-wash ps-3 text-ink">
              <bdi className="truncate">{chip.label}</bdi>
              <button
                type="button"
                aria-label={chip.removeLabel}
                className="inline-flex size-9 shrink-0 items-center justify-center rounded-lg text-soft hover:text-ink"
                onClick={() => {
                  onRemove(chip.value);
                  // The button goes with its chip; the focus must not fall to the top of the page.
                  field.current?.focus();
                }}
              >
                <Icon name="close" className="size-4" />
              </button>
            </li>
          ))}
        </ul>
      )}
      <input
        ref={field}
        id={id}
        type="text"
        dir={text === "" ? undefined : "auto"}
        autoComplete="off"
        autoCapitalize="none"
        enterKeyHint="done"
        maxLength={maxLength}
        value={text}
        readOnly={full}
        placeholder={placeholder}
        aria-describedby={describedBy}
        className="min-h-9 min-w-32 flex-1 bg-transparent px-2 outline-none"
        onChange={(event) => change(event.target.value)}
        onKeyDown={keyDown}
        onBlur={() => {
          // On a phone there is no obvious Enter: a word left behind was meant.
          if (text.trim() !== "" && take([text])) setText("");
        }}
      />
    </div>
  );
}
