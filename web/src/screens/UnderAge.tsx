import { useSpeech } from "../i18n/useSpeech";
import { Face } from "../ui/Face";
import { Notice } from "./Notice";

export function UnderAge({ minimumAge }: { readonly minimumAge: number }) {
  const { t } = useSpeech();
  return (
    <Notice screen="under-age" title={t("underAge.title")} picture={<Face hue={75} gaze="closed" className="size-24" />}>
      <p className="text-lg">{t("underAge.line", { age: minimumAge })}</p>
      <p className="text-soft">{t("underAge.care")}</p>
    </Notice>
  );
}
