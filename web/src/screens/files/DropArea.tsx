import { useSpeech } from "../../i18n/useSpeech";
import { Icon } from "../../ui/Icon";

/** Over everything while files are dragged; the page itself takes the drop. */
export function DropArea({ partnerName }: { readonly partnerName: string }) {
  const { t } = useSpeech();
  return (
    <div role="status" data-testid="drop-area" className="pointer-events-none fixed inset-0 z-40 bg-[color-mix(in_oklab,var(--color-paper)_94%,transparent)] p-4 sm:p-8">
      <div className="flex size-full animate-said flex-col items-center justify-center gap-3 rounded-card border-3 border-dashed border-accent p-6 text-center">
        <span className="inline-flex size-20 items-center justify-center rounded-full bg-accent text-on-accent shadow-float">
          <Icon name="attach" className="size-9" />
        </span>
        <p className="font-display text-2xl font-bold">{t("files.drop", { name: partnerName })}</p>
        <p className="max-w-[38ch] text-soft">{t("files.dropLine")}</p>
      </div>
    </div>
  );
}
