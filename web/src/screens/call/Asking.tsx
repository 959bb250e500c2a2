import type { Profile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { CallView } from "../../model";
import { Button } from "../../ui/Button";
import { Face } from "../../ui/Face";
import { Icon } from "../../ui/Icon";
import { useVisavis } from "../useVisavis";

interface Props {
  readonly call: CallView;
  readonly me: Profile;
  readonly partner: Profile;
}

/** Without a relay, connecting shows addresses: nothing happens before both have agreed to that. */
export function Asking({ call, me, partner }: Props) {
  const { t } = useSpeech();
  const visavis = useVisavis();
  const { name } = partner;
  return (
    <div className="absolute inset-0 flex flex-col overflow-y-auto p-5 flat:p-2">
      <div className="m-auto max-w-md text-center flat:max-w-2xl">
        <div className="flex items-center justify-center gap-3 flat:hidden" aria-hidden="true">
          <Face hue={me.hue} gaze="end" className="size-14 sm:size-16" />
          <Icon name="direct" className={`size-7 ${call.mine.direct ? "text-accent" : "text-soft"}`} />
          <Face hue={partner.hue} gaze="start" className="size-14 sm:size-16" />
        </div>
        <h2 className="mt-4 text-2xl flat:mt-0 flat:text-xl font-bold">{t("asking.title")}</h2>
        <p className="mt-2">{t("asking.line")}</p>
        <p className="mt-2 text-soft">
          {call.theirs.direct && !call.mine.direct ? t("asking.theyAgreed", { name }) : t("asking.rule")}
        </p>
        <div className="mt-5 flex flex-wrap flat:mt-2.5 items-center justify-center gap-3">
          {call.mine.direct ? (
            <>
              <p className="flex items-center gap-2.5 font-semibold">
                <span aria-hidden="true" className="size-2.5 animate-dot rounded-full bg-accent" />
                {t("direct.waiting", { name })}
              </p>
              <Button data-testid="direct-withdraw" onClick={() => void visavis.agree({ direct: false })}>
                {t("direct.takeBack")}
              </Button>
            </>
          ) : (
            <Button look="main" size="large" data-testid="direct-agree" onClick={() => void visavis.agree({ direct: true })}>
              {t("asking.agree")}
            </Button>
          )}
        </div>
      </div>
    </div>
  );
}
