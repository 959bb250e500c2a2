import { Component, type ReactNode } from "react";
import { useSpeech } from "../i18n/useSpeech";
import { Button } from "../ui/Button";
import { Face } from "../ui/Face";
import { Notice } from "./Notice";

/** Instead of an empty page: a part that did not load, or a defect of ours. */
export function Broken() {
  const { t } = useSpeech();
  return (
    <Notice screen="broken" title={t("broken.title")} picture={<Face hue={45} gaze="closed" className="size-24" />}>
      <p className="text-lg text-soft">{t("broken.line")}</p>
      <Button look="main" size="large" className="mt-2" onClick={() => location.reload()}>
        {t("broken.reload")}
      </Button>
    </Notice>
  );
}

interface Props {
  readonly children: ReactNode;
  readonly otherwise: ReactNode;
}

/** Shows its children until one of them fails. React offers this to classes only. */
export class Unbroken extends Component<Props, { readonly broken: boolean }> {
  override state = { broken: false };

  static getDerivedStateFromError() {
    return { broken: true };
  }

  override render() {
    return this.state.broken ? this.props.otherwise : this.props.children;
  }
}
