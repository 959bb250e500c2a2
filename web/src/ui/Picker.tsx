import { useId } from "react";
import { Icon, type IconName } from "./Icon";

interface Props {
  readonly label: string;
  readonly icon: IconName;
  readonly value: string;
  readonly options: readonly { readonly value: string; readonly label: string }[];
  readonly onChange: (value: string) => void;
}

/** One of several, by the system's own list. */
export function Picker({ label, icon, value, options, onChange }: Props) {
  const id = useId();
  return (
    <div className="min-w-0">
      <label htmlFor={id} className="sr-only">
        {label}
      </label>
      <div className="relative">
        <Icon name={icon} className="pointer-events-none absolute inset-y-0 start-3 my-auto size-5 text-soft" />
        <select
          id={id}
          value={value}
          title={label}
          onChange={(event) => onChange(event.target.value)}
          className="h-11 w-full appearance-none truncate rounded-xl border border-edge bg-surface ps-10 pe-9 text-ink"
        >
          {options.map((option) => (
            <option key={option.value} value={option.value}>
              {option.label}
            </option>
          ))}
        </select>
        <svg viewBox="0 0 24 24" aria-hidden="true" className="pointer-events-none absolute inset-y-0 end-3 my-auto size-4 text-soft" fill="none" stroke="currentColor" strokeWidth="2" strokeLinecap="round" strokeLinejoin="round">
          <path d="M6 9.500l6 6 6-6" />
        </svg>
      </div>
    </div>
  );
}
