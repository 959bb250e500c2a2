import type { SharedFile } from "../../contract.gen";
import { DownloadLink } from "./DownloadLink";
import { useAddress, useGone, useUncovered } from "./useFiles";

interface Props {
  readonly file: SharedFile;
  readonly mine: boolean;
  readonly className: string;
}

/** Saves what has no button of its own for it; not before it has been looked at. */
export function FileTool({ file, mine, className }: Props) {
  const gone = useGone(file);
  const open = useUncovered()({ mine, file });
  const offered = !gone && open && file.kind !== "document" && file.kind !== "audio";
  const { download } = useAddress(file.id, "download", offered);
  if (!offered) return null;
  return <DownloadLink file={file} href={download} className={`text-soft hover:bg-raised hover:text-ink ${className}`} />;
}
