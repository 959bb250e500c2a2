import { type ReactNode, useRef } from "react";
import { useSpeech } from "../i18n/useSpeech";
import { Logo } from "../ui/Face";
import { useArrival } from "./arrival";

interface Props {
  readonly screen: "under-age" | "failed" | "replaced" | "broken";
  readonly picture: ReactNode;
  readonly title: string;
  readonly children: ReactNode;
}

/** A screen that says one thing. */
export function Notice({ screen, picture, title, children }: Props) {
  const { t } = useSpeech();
  const heading = useRef<HTMLHeadingElement>(null);
  useArrival(heading);
  return (
    <div data-screen={screen} className="screen flex flex-col">
      <header className="mx-auto flex h-16 w-full max-w-6xl items-center gap-3 font-display text-lg font-bold lg:h-20">
        <Logo />
        <p>{t("app.name")}</p>
      </header>
      <main id="main" tabIndex={-1} className="mx-auto flex w-full max-w-lg flex-1 flex-col items-center justify-center gap-5 pb-20 text-center">
        {picture}
        <h1 ref={heading} tabIndex={-1} className="text-3xl font-bold tracking-tight">
          {title}
        </h1>
        {children}
      </main>
    </div>
  );
}
