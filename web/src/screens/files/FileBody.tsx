import type { SharedFile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Icon } from "../../ui/Icon";
import { until } from "../until";
import { useNow } from "../useNow";
import { Paper } from "./Paper";
import { Picture } from "./Picture";
import { Sound } from "./Sound";
import { useGone } from "./useFiles";
import { fileIcon, fileWords } from "./words";

interface Props {
  readonly file: SharedFile;
  readonly mine: boolean;
  readonly partnerName: string;
}

/** Fills its bubble to the edge. */
export const isWide = (file: SharedFile | null) => file?.kind === "picture" || file?.kind === "video";

export function FileBody({ file, mine, partnerName }: Props) {
  const speech = useSpeech();
  if (useGone(file))
    return (
      <div data-testid="file-gone" className={`flex max-w-full items-center gap-3 ${isWide(file) ? "px-3 py-1.5" : ""}`}>
        <span className="inline-flex size-11 shrink-0 items-center justify-center rounded-xl border border-dashed border-current">
          <Icon name={fileIcon(file)} className="size-6" />
        </span>
        <p className="min-w-0">
          <span className="block font-semibold">{speech.t("files.gone")}</span>
          <span className="block text-xs">{speech.t("files.goneLine")}</span>
          <span className="flex text-xs">
            <bdi className="min-w-0 truncate">{fileWords(speech, file)}</bdi>
          </span>
        </p>
      </div>
    );
  if (isWide(file)) return <Picture file={file} mine={mine} partnerName={partnerName} />;
  return file.kind === "document" ? <Paper file={file} /> : <Sound file={file} />;
}

/** How long it can still be had, where the file itself has no room for it. */
export function Expiry({ file }: { readonly file: SharedFile }) {
  const speech = useSpeech();
  const now = useNow(60_000);
  return useGone(file) ? null : <span>· {speech.t("files.expires", { when: until(speech, file.expiresAt - now) })}</span>;
}
