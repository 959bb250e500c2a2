import { lazy, Suspense, useEffect, useState } from "react";
import { loadCalls } from "./i18n/load";
import { Speaking, useSpeech } from "./i18n/useSpeech";
import type { SessionView, Visavis } from "./model";
import { Announcer } from "./screens/announce";
import { ArrivalContext, createArrive } from "./screens/arrival";
import { Broken, Unbroken } from "./screens/Broken";
import { Failed } from "./screens/Failed";
import { LinkBanner } from "./screens/LinkBanner";
import { Lobby } from "./screens/Lobby";
import { Replaced } from "./screens/Replaced";
import { Searching } from "./screens/Searching";
import { UnderAge } from "./screens/UnderAge";
import { useDocument } from "./screens/useDocument";
import { useTitle } from "./screens/useTitle";
import { useVisavis, VisavisContext } from "./screens/useVisavis";
import { Welcome } from "./screens/Welcome";
import { useStore } from "./useStore";

const loadConversation = async () => (await Promise.all([import("./screens/Conversation"), loadCalls()]))[0];
const Conversation = lazy(loadConversation);

export function App({ visavis }: { readonly visavis: Visavis }) {
  const { locale, theme } = useStore(visavis.settings);
  const [arrive] = useState(createArrive);
  useDocument(theme);
  return (
    <VisavisContext value={visavis}>
      <Speaking locale={locale}>
        <ArrivalContext value={arrive}>
          <Announcer>
            <Unbroken otherwise={<Broken />}>
              <Page />
            </Unbroken>
          </Announcer>
        </ArrivalContext>
      </Speaking>
    </VisavisContext>
  );
}

function Page() {
  const { t } = useSpeech();
  const visavis = useVisavis();
  const session = useStore(visavis.session);
  return (
    <>
      <a
        href="#main"
        className="fixed start-3 top-3 z-50 -translate-y-24 rounded-xl bg-ink px-5 py-3 font-semibold text-paper focus:translate-y-0"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        {t("app.skipLink")}
      </a>
      <Screen session={session} />
      <LinkBanner
        link={session.phase === "ready" ? session.link : "online"}
        hold={session.phase === "ready" ? (session.hold ?? null) : null}
      />
    </>
  );
}

function Screen({ session }: { readonly session: SessionView }) {
  switch (session.phase) {
    case "loading":
      return <Loading />;
    case "welcome":
      return <Welcome needs={session.needs} busy={session.busy} problem={session.problem} />;
    case "underAge":
      return <UnderAge minimumAge={session.minimumAge} />;
    case "replaced":
      return <Replaced />;
    case "failed":
      return <Failed problem={session.problem} retryAt={session.retryAt} />;
    case "ready":
      return <Inside profile={session.profile} />;
  }
}

type Ready = Extract<SessionView, { phase: "ready" }>;

function Inside({ profile }: Pick<Ready, "profile">) {
  const visavis = useVisavis();
  const search = useStore(visavis.search);
  const conversation = useStore(visavis.conversation);
  const call = useStore(visavis.call);
  useTitle(conversation, call?.phase === "ringing");

  // The most likely next screen, fetched while one still looks at this one.
  useEffect(() => {
    const timer = setTimeout(() => void loadConversation().catch(() => undefined), 300);
    return () => clearTimeout(timer);
  }, []);

  if (search.phase === "searching" && (conversation === null || conversation.ended !== null))
    return <Searching search={search} profile={profile} />;
  if (conversation !== null)
    return (
      <Suspense fallback={<Loading />}>
        <Conversation key={conversation.id} conversation={conversation} me={profile} />
      </Suspense>
    );
  return <Lobby profile={profile} />;
}

/** Mostly too short to be seen; says something only if it lasts. */
function Loading() {
  const { t } = useSpeech();
  return (
    <main id="main" tabIndex={-1} className="screen flex items-center justify-center" aria-busy="true">
      <h1 className="animate-late text-lg font-normal text-soft">{t("app.loading")}</h1>
    </main>
  );
}
