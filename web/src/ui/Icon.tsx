/** Line icons on a 24 grid, drawn for this page. Always beside words, or on a button that has a label. */
const PATHS = {
  close: "M6.500 6.500l11 11M17.500 6.500l-11 11",
  more: "M5.500 12h.01M12 12h.01M18.500 12h.01",
  reply: "M9.500 6.500L4.500 11.500l5 5M5 11.500h8.500a6 6 0 0 1 6 6v.5",
  smile: "M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17ZM8.500 14c.8 1.300 2 2 3.500 2s2.700-.7 3.500-2M9 9.800v.4M15 9.800v.4",
  copy: "M9 8.500h8.500a1.500 1.500 0 0 1 1.500 1.500v8.500a1.500 1.500 0 0 1-1.500 1.500H9a1.500 1.500 0 0 1-1.500-1.500V10A1.500 1.500 0 0 1 9 8.500ZM5 15.500V6A1.500 1.500 0 0 1 6.500 4.500H15",
  trash: "M5 7h14M10 7V4.500h4V7M6.500 7l.8 12a1.500 1.500 0 0 0 1.500 1.500h6.400a1.500 1.500 0 0 0 1.500-1.500l.8-12M10.500 11v5.500M13.500 11v5.500",
  send: "M12 19.500v-15M5.500 11L12 4.500l6.500 6.500",
  down: "M12 5v14M6 13l6 6 6-6",
  check: "M5 12.500l4.500 4.500L19 7.500",
  checks: "M2.500 12.500l4 4L15 8M11.500 15.500l1 1L21.500 8",
  clock: "M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17ZM12 7.500V12l3 2",
  alert: "M12 8v5M12 16.200v.01M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17Z",
  retry: "M19.500 12a7.500 7.500 0 1 1-2.200-5.300L19.500 9M19.500 4.500V9H15",
  settings:
    "M4.500 7h7M16.500 7h3M4.500 17h3M12.500 17h7M14 9.500a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5ZM10 19.500a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5Z",
  text: "M5.500 5h13A1.500 1.500 0 0 1 20 6.500v9a1.500 1.500 0 0 1-1.500 1.500H11l-4.500 3.500V17h-1A1.500 1.500 0 0 1 4 15.500v-9A1.500 1.500 0 0 1 5.500 5Z",
  voice: "M12 14.500a3 3 0 0 0 3-3v-5a3 3 0 0 0-6 0v5a3 3 0 0 0 3 3ZM6 11.500a6 6 0 0 0 12 0M12 17.500v3",
  video: "M5 7h8.500A1.500 1.500 0 0 1 15 8.500v7a1.500 1.500 0 0 1-1.500 1.500H5a1.500 1.500 0 0 1-1.500-1.500v-7A1.500 1.500 0 0 1 5 7ZM15 11l5.500-3v8L15 13",
  plus: "M12 5.500v13M5.500 12h13",
  skip: "M5 6l7 6-7 6V6ZM13 6l7 6-7 6V6Z",
  share: "M12 14.500V4M8 7.500L12 3.500l4 4M6 11.500H5.500v8h13v-8H18",
  qr: "M4.500 4.500h6v6h-6zM13.500 4.500h6v6h-6zM4.500 13.500h6v6h-6zM13.500 13.500h2v2M19.500 13.500v2.500M14 19.500h2M19 19.500h.5",
  block: "M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17ZM6.200 6.200l11.600 11.600",
  flag: "M6 20.500v-16M6 5h11.500l-2.500 4 2.500 4H6",
  search: "M11 17.500a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13ZM16 16l4 4",
} as const;

export type IconName = keyof typeof PATHS;

/** Icons that point somewhere turn around where reading does. */
const POINTING: ReadonlySet<IconName> = new Set(["reply", "skip", "text"]);

export function Icon({ name, className = "size-5" }: { readonly name: IconName; readonly className?: string }) {
  return (
    <svg
      viewBox="0 0 24 24"
      aria-hidden="true"
      className={`shrink-0 ${POINTING.has(name) ? "mirrored" : ""} ${className}`}
      fill="none"
      stroke="currentColor"
      strokeWidth={name === "more" ? 2.8 : 1.8}
      strokeLinecap="round"
      strokeLinejoin="round"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}
