import type { SharedFile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Icon } from "../../ui/Icon";
import { fileWords } from "./words";

interface Props {
  readonly file: SharedFile;
  /** Null until it is known. */
  readonly href: string | null;
  readonly className?: string;
}

const ROUND = "size-11 rounded-full bg-[color-mix(in_oklab,currentColor_12%,transparent)] hover:bg-[color-mix(in_oklab,currentColor_22%,transparent)]";

/** Saves the file under its name, by the browser's own means. */
export function DownloadLink({ file, href, className = ROUND }: Props) {
  const speech = useSpeech();
  const label = speech.t("files.downloadOf", { file: fileWords(speech, file) });
  const look = `inline-flex shrink-0 items-center justify-center transition-colors duration-150 ${className}`;
  if (href === null)
    return (
      <span aria-hidden="true" className={`${look} opacity-50`}>
        <Icon name="download" />
      </span>
    );
  return (
    <a href={href} download data-testid="file-download" aria-label={label} title={speech.t("files.download")} className={look}>
      <Icon name="download" />
    </a>
  );
}
