import { useSpeech } from "../../i18n/useSpeech";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { useVisavis } from "../useVisavis";

/** What a recording is, before anybody is asked for one. */
export function RecordDialog({ name, onClose }: { readonly name: string; readonly onClose: () => void }) {
  const { t } = useSpeech();
  const visavis = useVisavis();
  return (
    <Dialog title={t("record.title")} closeLabel={t("app.close")} onClose={onClose}>
      <p className="mt-2">{t("record.line", { name })}</p>
      <p className="mt-2 text-soft">{t("record.stopLine")}</p>
      <div className="mt-5 flex flex-wrap justify-end gap-2">
        <Button onClick={onClose}>{t("app.cancel")}</Button>
        <Button
          look="main"
          data-testid="record-confirm"
          onClick={() => {
            onClose();
            void visavis.agree({ recording: true });
          }}
        >
          {t("record.yes", { name })}
        </Button>
      </div>
    </Dialog>
  );
}
