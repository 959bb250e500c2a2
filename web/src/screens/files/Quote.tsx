import { useSpeech } from "../../i18n/useSpeech";
import type { MessageView } from "../../model";
import { Icon } from "../../ui/Icon";
import { plainLine } from "../../ui/plain";
import { fileIcon, fileWords } from "./words";

/** A message in a line: its words, or what was sent. */
export function Quote({ message }: { readonly message: Pick<MessageView, "text" | "file"> }) {
  const speech = useSpeech();
  const { text, file } = message;
  if (text === null) return speech.t("chat.replyGone");
  if (file === null) return plainLine(text);
  return (
    <>
      <Icon name={fileIcon(file)} className="me-1.5 inline-block size-4 align-[-0.2em]" />
      {text === "" ? fileWords(speech, file) : plainLine(text)}
    </>
  );
}
