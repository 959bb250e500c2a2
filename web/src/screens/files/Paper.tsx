import { useRef } from "react";
import type { SharedFile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Icon } from "../../ui/Icon";
import { plainLine } from "../../ui/plain";
import { until } from "../until";
import { useNow } from "../useNow";
import { DownloadLink } from "./DownloadLink";
import { useAddress, useNear } from "./useFiles";
import { fileIcon, sizeWords, typeWords } from "./words";

/** A document: never opened here, only saved. */
export function Paper({ file }: { readonly file: SharedFile }) {
  const speech = useSpeech();
  const box = useRef<HTMLDivElement>(null);
  const near = useNear(box);
  const { download } = useAddress(file.id, "download", near);
  const now = useNow(60_000);
  return (
    <div ref={box} data-testid="file-document" className="flex w-72 max-w-full items-center gap-3">
      <span className="inline-flex size-11 shrink-0 items-center justify-center rounded-xl bg-[color-mix(in_oklab,currentColor_14%,transparent)]">
        <Icon name={fileIcon(file)} className="size-6" />
      </span>
      <p className="min-w-0 flex-1">
        <span className="line-clamp-2 leading-snug font-semibold [overflow-wrap:anywhere]">
          <bdi>{plainLine(file.name, 120)}</bdi>
        </span>
        <span className="block text-xs">
          {typeWords(speech, file.kind, file.name)} · {sizeWords(speech, file.bytes)}
        </span>
        <span className="block text-xs">{speech.t("files.expires", { when: until(speech, file.expiresAt - now) })}</span>
      </p>
      <DownloadLink file={file} href={download} />
    </div>
  );
}
