import { useSpeech } from "../../i18n/useSpeech";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";

interface Props {
  readonly partnerName: string;
  readonly onDelete: () => void;
  readonly onClose: () => void;
}

export function DeleteDialog({ partnerName, onDelete, onClose }: Props) {
  const { t } = useSpeech();
  return (
    <Dialog title={t("chat.deleteTitle")} closeLabel={t("app.close")} onClose={onClose}>
      <p className="mt-1 text-soft">{t("chat.deleteLine", { name: partnerName })}</p>
      <div className="mt-6 flex flex-wrap justify-end gap-3">
        <Button onClick={onClose}>{t("app.cancel")}</Button>
        <Button
          look="danger"
          data-testid="delete-yes"
          onClick={() => {
            onDelete();
            onClose();
          }}
        >
          {t("chat.deleteYes")}
        </Button>
      </div>
    </Dialog>
  );
}
