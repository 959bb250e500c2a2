import { useSpeech } from "../i18n/useSpeech";
import { Button } from "../ui/Button";
import { EmptySeat } from "../ui/Face";
import { Notice } from "./Notice";
import { useVisavis } from "./useVisavis";

export function Replaced() {
  const { t } = useSpeech();
  const visavis = useVisavis();
  return (
    <Notice screen="replaced" title={t("replaced.title")} picture={<EmptySeat className="size-24" />}>
      <p className="text-lg text-soft">{t("replaced.line")}</p>
      <Button look="main" size="large" className="mt-2" onClick={() => visavis.takeBack()}>
        {t("replaced.take")}
      </Button>
    </Notice>
  );
}
