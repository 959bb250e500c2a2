import { useState } from "react";
import type { ErrorCode } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { ConversationView } from "../../model";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { problemWords } from "../problem";
import { useVisavis } from "../useVisavis";

interface Props {
  readonly conversation: ConversationView;
  readonly onClose: () => void;
}

export function BlockDialog({ conversation, onClose }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<ErrorCode | "unreachable" | null>(null);
  const { name } = conversation.partner;

  async function block() {
    setBusy(true);
    const wrong = await visavis.block();
    setBusy(false);
    setProblem(wrong);
    if (wrong === null) onClose();
  }

  return (
    <Dialog title={t("block.title", { name })} closeLabel={t("app.close")} onClose={onClose}>
      <p className="mt-1 text-soft">{t("block.line", { name })}</p>
      {problem !== null && (
        <p role="alert" className="mt-3 text-sm font-semibold text-accent-strong">
          {problemWords(speech, problem)}
        </p>
      )}
      <div className="mt-6 flex flex-wrap justify-end gap-3">
        <Button onClick={onClose}>{t("app.cancel")}</Button>
        <Button look="danger" data-testid="block-yes" aria-disabled={busy} onClick={() => !busy && void block()}>
          {t(conversation.ended === null ? "block.yes" : "block.yesEnded")}
        </Button>
      </div>
    </Dialog>
  );
}
