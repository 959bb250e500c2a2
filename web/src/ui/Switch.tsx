import { useId } from "react";

interface Props {
  readonly label: string;
  readonly line: string;
  readonly on: boolean;
  readonly onChange: (on: boolean) => void;
  readonly testid?: string;
}

export function Switch({ label, line, on, onChange, testid }: Props) {
  const id = useId();
  return (
    <div className="flex items-center justify-between gap-4">
      <div>
        <label htmlFor={id} className="block font-semibold">
          {label}
        </label>
        <p id={`${id}-line`} className="text-sm text-soft">
          {line}
        </p>
      </div>
      <input
        id={id}
        type="checkbox"
        role="switch"
        data-testid={testid}
        aria-describedby={`${id}-line`}
        checked={on}
        onChange={(event) => onChange(event.target.checked)}
        className="relative h-7 w-12 shrink-0 appearance-none rounded-full border border-edge bg-raised transition-colors duration-150 before:absolute before:start-1 before:top-1/2 before:size-4.5 before:-translate-y-1/2 before:rounded-full before:bg-edge before:transition-[inset] before:duration-150 checked:border-accent checked:bg-accent checked:before:start-6 checked:before:bg-on-accent"
      />
    </div>
  );
}
