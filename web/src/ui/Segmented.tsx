import type { ReactNode } from "react";

interface Option<T extends string> {
  readonly value: T;
  readonly label: ReactNode;
  readonly disabled?: boolean;
}

interface Props<T extends string> {
  readonly legend: string;
  readonly name: string;
  readonly options: readonly Option<T>[];
  readonly value: T;
  readonly onChange: (value: T) => void;
  readonly legendClass?: string;
}

/** A few choices side by side: radio buttons that look like one control. */
export function Segmented<T extends string>({ legend, name, options, value, onChange, legendClass = "" }: Props<T>) {
  return (
    <fieldset className="min-w-0">
      <legend className={legendClass}>{legend}</legend>
      <div className="flex gap-1 rounded-xl bg-raised p-1">
        {options.map((option) => (
          <label
            key={option.value}
            className="flex min-h-11 min-w-0 flex-1 items-center justify-center gap-2 rounded-lg px-2 text-center font-medium text-soft transition-colors duration-150 hover:text-ink has-checked:bg-surface has-checked:text-ink has-checked:shadow-card has-disabled:cursor-not-allowed has-disabled:hover:text-soft has-focus-visible:outline-2.5 has-focus-visible:outline-offset-1 has-focus-visible:outline-accent-strong"
          >
            <input
              type="radio"
              className="sr-only"
              name={name}
              value={option.value}
              checked={option.value === value}
              disabled={option.disabled}
              onChange={() => onChange(option.value)}
            />
            {option.label}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
