/** What files are called: sizes, kinds, lengths, and why one cannot be sent. */
import type { ErrorCode, FileKind, SharedFile } from "../../contract.gen";
import type { Speech } from "../../i18n/speak";
import type { IconName } from "../../ui/Icon";
import { plainLine } from "../../ui/plain";
import { problemWords } from "../problem";

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte"] as const;
const STEP = 1000;

export function sizeWords({ tag }: Pick<Speech, "tag">, bytes: number): string {
  let size = bytes;
  let unit = 0;
  // 999.95 kB would be rounded to 1,000 kB.
  while (size >= STEP - (unit === 0 ? 0 : 0.05) && unit < UNITS.length - 1) {
    size /= STEP;
    unit += 1;
  }
  return new Intl.NumberFormat(tag, {
    style: "unit",
    unit: UNITS[unit],
    unitDisplay: unit === 0 ? "long" : "short",
    maximumFractionDigits: size < 10 && unit > 0 ? 1 : 0,
  }).format(size);
}

/** How long files are kept: "24 hours". */
export function keptWords({ tag }: Pick<Speech, "tag">, seconds: number): string {
  const [unit, size] = seconds >= 3600 ? (["hour", 3600] as const) : (["minute", 60] as const);
  return new Intl.NumberFormat(tag, { style: "unit", unit, unitDisplay: "long", maximumFractionDigits: 0 }).format(
    Math.max(1, Math.round(seconds / size)),
  );
}

const ENDING = /\.([\p{L}\p{N}]{1,5})$/u;

/** "PDF", "ZIP": what the name ends in, or else what kind it is. */
export function typeWords({ t }: Pick<Speech, "t">, kind: FileKind, name: string): string {
  const ending = ENDING.exec(plainLine(name, 255))?.[1];
  return ending === undefined ? t(`files.kind.${kind}`) : ending.toUpperCase();
}

/** One line for a quote or a label. */
export function fileWords(speech: Speech, file: Pick<SharedFile, "kind" | "name" | "seconds">): string {
  if (file.kind === "document" || file.kind === "audio") return plainLine(file.name, 80);
  const kind = speech.t(`files.kind.${file.kind}`);
  return file.seconds === null ? kind : `${kind} · ${speech.elapsed(file.seconds * 1000)}`;
}

const KIND_ICONS: Readonly<Record<FileKind, IconName>> = {
  picture: "photo",
  video: "video",
  audio: "music",
  voice: "voice",
  document: "file",
};
const ARCHIVES = /\.(zip|gz|tgz|xz|bz2|7z|rar|tar)$/i;
const SHEETS = /\.(csv|tsv|xlsx?|ods|numbers)$/i;
const PAGES = /\.(pdf|docx?|odt|rtf|txt|md|epub|pages|pptx?|odp)$/i;

export function fileIcon({ kind, name }: Pick<SharedFile, "kind" | "name">): IconName {
  if (kind !== "document") return KIND_ICONS[kind];
  if (ARCHIVES.test(name)) return "archive";
  if (SHEETS.test(name)) return "sheet";
  return PAGES.test(name) ? "pages" : "file";
}

/** Why it cannot be sent, with the limit it passed, if that is known. */
export function refusalWords(
  speech: Speech,
  problem: ErrorCode | "unreachable" | "unreadable_here",
  limit: number | null,
): string {
  if (problem === "unreadable_here") return speech.t("files.unreadable_here");
  if (limit !== null) {
    if (problem === "file_too_large") return speech.t("files.tooLarge", { limit: sizeWords(speech, limit) });
    if (problem === "too_many_files") return speech.t("files.tooMuch", { limit: sizeWords(speech, limit) });
    if (problem === "picture_too_large") return speech.t("files.tooManyPixels", { limit: Math.floor(limit / 1e6) });
  }
  return problemWords(speech, problem);
}

/** For drawing it before anybody has looked inside. */
export function kindOf(type: string): FileKind {
  if (type.startsWith("image/")) return "picture";
  if (type.startsWith("video/")) return "video";
  return type.startsWith("audio/") ? "audio" : "document";
}
