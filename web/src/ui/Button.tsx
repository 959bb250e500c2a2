import type { ComponentProps } from "react";

type Look = "main" | "quiet" | "plain" | "danger" | "stop";

const LOOKS: Readonly<Record<Look, string>> = {
  main: "bg-accent text-on-accent hover:bg-accent-strong disabled:bg-raised disabled:text-soft font-semibold",
  quiet: "border border-edge bg-surface text-ink hover:bg-raised disabled:text-soft font-medium",
  plain: "text-soft hover:bg-raised hover:text-ink disabled:text-soft font-medium",
  danger: "bg-ink text-paper hover:opacity-90 disabled:bg-raised disabled:text-soft font-semibold",
  stop: "bg-stop text-on-stop hover:bg-stop-strong font-semibold",
};

const SIZES = {
  large: "min-h-14 rounded-2xl px-7 text-lg",
  medium: "min-h-11 rounded-xl px-4.5",
  small: "min-h-9 rounded-lg px-3 text-sm",
} as const;

interface Props extends ComponentProps<"button"> {
  readonly look?: Look;
  readonly size?: keyof typeof SIZES;
}

export function Button({ look = "quiet", size = "medium", className = "", type = "button", ...rest }: Props) {
  return (
    <button
      type={type}
      className={`inline-flex items-center justify-center gap-2 transition-colors duration-150 disabled:cursor-not-allowed ${SIZES[size]} ${LOOKS[look]} ${className}`}
      {...rest}
    />
  );
}

interface IconButtonProps extends ComponentProps<"button"> {
  /** What it does; the icon inside is decoration. */
  readonly label: string;
}

export function IconButton({ label, className = "size-11 rounded-xl", type = "button", ...rest }: IconButtonProps) {
  return (
    <button
      type={type}
      aria-label={label}
      title={label}
      className={`inline-flex shrink-0 items-center justify-center text-soft transition-colors duration-150 hover:bg-raised hover:text-ink data-[state=open]:bg-raised data-[state=open]:text-ink ${className}`}
      {...rest}
    />
  );
}
