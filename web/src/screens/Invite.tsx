import { useId, useRef, useState } from "react";
import { useSpeech } from "../i18n/useSpeech";
import { Button } from "../ui/Button";
import { Icon } from "../ui/Icon";
import { useStore } from "../useStore";
import { useAnnounce } from "./announce";
import { useVisavis } from "./useVisavis";

/** Nobody else is here: the address, ready to hand to someone. */
export function Invite() {
  const { t } = useSpeech();
  const { settings } = useVisavis();
  const { sounds } = useStore(settings);
  const announce = useAnnounce();
  const [copied, setCopied] = useState<"yes" | "no" | null>(null);
  const [qr, setQr] = useState(false);
  const [QrCode, setQrCode] = useState<typeof import("../ui/QrCode").default | null>(null);
  const field = useRef<HTMLInputElement>(null);
  const ids = useId();
  const address = `${location.origin}/`;
  const canShare = "share" in navigator;

  async function copy() {
    try {
      await navigator.clipboard.writeText(address);
      setCopied("yes");
      announce(t("search.copied"));
    } catch {
      // No clipboard without https or permission: selected, it is one key away.
      setCopied("no");
      field.current?.select();
    }
  }

  async function toggleQr() {
    setQr(!qr);
    if (qr || QrCode !== null) return;
    try {
      const part = await import("../ui/QrCode");
      setQrCode(() => part.default);
    } catch {
      // The network went in this moment: the next press tries again.
      setQr(false);
    }
  }

  async function share() {
    try {
      await navigator.share({ title: t("app.name"), text: t("search.shareText"), url: address });
    } catch {
      // Closing the share sheet is an answer too.
    }
  }

  return (
    <section className="w-full max-w-md">
      <p className="text-soft">{t(sounds ? "search.aloneLine" : "search.aloneLineQuiet")}</p>
      <div className="mt-5 rounded-card border border-line bg-surface p-4 shadow-card">
        <label htmlFor={ids} className="sr-only">
          {t("search.address")}
        </label>
        <input
          ref={field}
          id={ids}
          readOnly
          dir="ltr"
          value={address}
          onFocus={(event) => event.target.select()}
          className="h-11 w-full rounded-xl bg-raised px-3 text-center font-medium"
        />
        <div className="mt-3 flex flex-wrap justify-center gap-2">
          <Button size="medium" onClick={() => void copy()}>
            <Icon name={copied === "yes" ? "check" : "copy"} />
            {t(copied === "yes" ? "search.copied" : "search.copy")}
          </Button>
          {canShare && (
            <Button size="medium" onClick={() => void share()}>
              <Icon name="share" />
              {t("search.share")}
            </Button>
          )}
          <Button size="medium" aria-expanded={qr} onClick={() => void toggleQr()}>
            <Icon name="qr" />
            {t("search.qr")}
          </Button>
        </div>
        {copied === "no" && (
          <p role="alert" className="mt-3 text-sm text-soft">
            {t("search.copyFailed")}
          </p>
        )}
        {qr && (
          <div className="mt-4 flex min-h-52 justify-center">
            {QrCode !== null && <QrCode text={address} label={t("search.qrLabel")} />}
          </div>
        )}
      </div>
    </section>
  );
}
