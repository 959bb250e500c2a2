import { lazy, type SubmitEvent, Suspense, useEffect, useId, useRef, useState } from "react";
import { MAX_INTEREST, MAX_INTERESTS, MAX_LANGUAGES, type Mode, type Profile } from "../contract.gen";
import { loadCalls } from "../i18n/load";
import { useSpeech } from "../i18n/useSpeech";
import { useStore } from "../useStore";
import { Button } from "../ui/Button";
import { Chips } from "../ui/Chips";
import { EmptySeat, Face } from "../ui/Face";
import { Icon } from "../ui/Icon";
import { Segmented } from "../ui/Segmented";
import { useAnnounce } from "./announce";
import { useArrival } from "./arrival";
import { LanguagesDialog } from "./LanguagesDialog";
import { problemWords } from "./problem";
import { TopBar } from "./TopBar";
import { isFree, useKeys } from "./useKeys";
import { useVisavis } from "./useVisavis";

const loadDevices = async () => (await Promise.all([import("./devices/DeviceDialog"), loadCalls()]))[0];
const loadRecordings = async () => (await Promise.all([import("./recordings/RecordingsDialog"), loadCalls()]))[0];
const DeviceDialog = lazy(async () => ({ default: (await loadDevices()).DeviceDialog }));
const RecordingsDialog = lazy(async () => ({ default: (await loadRecordings()).RecordingsDialog }));

const MODES: readonly Mode[] = ["text", "voice", "video"];
const POPULAR_SHOWN = 8;

export function Lobby({ profile }: { readonly profile: Profile }) {
  const speech = useSpeech();
  const { t, tn } = speech;
  const visavis = useVisavis();
  const lobby = useStore(visavis.lobby);
  const search = useStore(visavis.search);
  const session = useStore(visavis.session);
  const announce = useAnnounce();
  const [going, setGoing] = useState(false);
  const [choosing, setChoosing] = useState(false);
  const [part, setPart] = useState<"devices" | "recordings" | null>(null);
  const [partMissing, setPartMissing] = useState(false);
  const { recordings } = useStore(visavis.recordings);
  const heading = useRef<HTMLHeadingElement>(null);
  const addLanguage = useRef<HTMLButtonElement>(null);
  const ids = useId();
  useArrival(heading);

  // Whoever wants to talk is about to need it.
  const talks = lobby.mode !== "text";
  useEffect(() => {
    if (talks) void loadDevices().catch(() => undefined);
  }, [talks]);
  useEffect(() => {
    if (lobby.recording) void visavis.loadRecordings();
  }, [visavis, lobby.recording]);

  /** Shows a dialog that loads apart, once it is there; without a network it says so instead. */
  function show(which: "devices" | "recordings") {
    setPartMissing(false);
    (which === "devices" ? loadDevices() : loadRecordings()).then(
      () => setPart(which),
      () => setPartMissing(true),
    );
  }

  function find() {
    if (going || part !== null) return;
    if (talks) {
      show("devices");
      return;
    }
    setGoing(true);
    void visavis.find().finally(() => setGoing(false));
  }

  useKeys((event) => {
    if (event.key === "Enter" && isFree(event)) find();
  });

  function add(text: string): boolean {
    const interest = visavis.addInterest(text);
    announce(interest === null ? t("lobby.interestRefused") : t("lobby.interestAdded", { interest }));
    return interest !== null;
  }

  function remove(interest: string) {
    visavis.removeInterest(interest);
    announce(t("lobby.interestRemoved", { interest }));
  }

  const full = lobby.interests.length >= MAX_INTERESTS;
  const popular = lobby.popular.filter(({ interest }) => !lobby.interests.includes(interest)).slice(0, POPULAR_SHOWN);
  const problem = partMissing ? "unreachable" : search.phase === "idle" ? search.problem : null;
  // While the connection is away nobody knows who is here.
  const known = session.phase === "ready" && session.link === "online";
  const here = !known
    ? t("app.loading")
    : lobby.online === 0
      ? t("lobby.nobody")
      : lobby.online === 1
        ? t("lobby.justYou")
        : tn("lobby.online", lobby.online);

  return (
    <div data-screen="lobby" className="screen flex flex-col max-lg:tall:pb-32">
      <TopBar />
      <main id="main" tabIndex={-1} className="mx-auto flex w-full max-w-2xl flex-1 lg:max-w-6xl flex-col lg:justify-center lg:pb-20">
        <form
          onSubmit={(event: SubmitEvent) => {
            event.preventDefault();
            find();
          }}
          className="grid grid-cols-[minmax(0,1fr)] gap-8 pt-2 lg:grid-cols-[minmax(0,1fr)_minmax(0,29rem)] lg:items-center lg:gap-20"
        >
          <div>
            <div className="mb-5 flex items-center gap-1.5 lg:mb-8 lg:gap-3" aria-hidden="true">
              <Face hue={profile.hue} gaze="end" className="size-14 lg:size-28" />
              <EmptySeat className="size-14 lg:size-28" />
            </div>
            <h1 ref={heading} tabIndex={-1} className="text-[2rem] leading-[1.12] font-bold tracking-tight lg:text-[3.5rem]">
              {t("lobby.title")}
            </h1>
            <p className="mt-3 max-w-[34ch] text-lg text-soft lg:mt-5 lg:text-xl">{t("lobby.line")}</p>

            <div className="mt-6 max-lg:tall:mt-0 max-lg:tall:fixed max-lg:tall:inset-x-0 max-lg:tall:bottom-0 max-lg:tall:z-20 max-lg:tall:border-t max-lg:tall:border-line max-lg:tall:bg-paper max-lg:tall:px-5 max-lg:tall:pt-3 max-lg:tall:pb-[max(1rem,env(safe-area-inset-bottom))] lg:mt-9">
              <div className="mx-auto max-w-xl lg:mx-0 lg:flex lg:items-center lg:gap-5">
                <Button type="submit" look="main" size="large" data-testid="find" aria-disabled={going} className="w-full lg:w-auto lg:px-10">
                  {t(going ? "app.loading" : "lobby.find")}
                </Button>
                <span className="hidden text-soft lg:inline touch:lg:hidden">{t("lobby.findHint")}</span>
              </div>
              {problem !== null && (
                <p role="alert" className="mx-auto mt-3 flex max-w-xl items-center gap-2 text-sm font-semibold text-accent-strong lg:mx-0">
                  <Icon name="alert" className="size-4.5" />
                  {problemWords(speech, problem)}
                </p>
              )}
            </div>

            <p className="mt-5 flex items-center gap-2.5 text-soft lg:mt-8" data-testid="online" style={{ "--hue": profile.hue }}>
              <span aria-hidden="true" className={`mx-1 size-2.5 shrink-0 rounded-full ${known && lobby.online > 1 ? "hue-dot" : "border-2 border-edge"}`} />
              {here}
            </p>
            <p className="mt-1.5 flex items-center gap-2.5 text-soft">
              <Face hue={profile.hue} className="size-4.5" />
              <span>
                {t("lobby.you")}{" "}
                <bdi className="hue-words font-semibold" style={{ "--hue": profile.hue }}>
                  {profile.name}
                </bdi>
              </span>
            </p>
            {recordings.length > 0 && (
              <button
                type="button"
                data-testid="recordings-open"
                onClick={() => show("recordings")}
                className="mt-3 -ms-2 inline-flex min-h-10 items-center gap-2.5 rounded-xl px-2 font-medium text-soft transition-colors duration-150 hover:bg-raised hover:text-ink"
              >
                <Icon name="record" />
                {t("lobby.recordings")}
                <span className="rounded-full bg-raised px-2 text-sm tabular-nums">{speech.number(recordings.length)}</span>
              </button>
            )}
          </div>

          <section
            aria-labelledby={`${ids}-choices`}
            className="flex flex-col gap-7 lg:rounded-card lg:border lg:border-line lg:bg-surface lg:p-8 lg:shadow-card"
          >
            <h2 id={`${ids}-choices`} className="text-xl font-bold">
              {t("lobby.choices")}
            </h2>

            <div>
              <label htmlFor={`${ids}-interests`} className="mb-2 block font-semibold">
                {t("lobby.interests")}
              </label>
              <Chips
                id={`${ids}-interests`}
                chips={lobby.interests.map((interest) => ({
                  value: interest,
                  label: interest,
                  removeLabel: t("lobby.removeInterest", { interest }),
                }))}
                placeholder={
                  full ? "" : t(lobby.interests.length === 0 ? "lobby.interestsPlaceholder" : "lobby.interestsMore")
                }
                describedBy={`${ids}-interests-hint`}
                full={full}
                maxLength={MAX_INTEREST}
                onAdd={add}
                onRemove={remove}
                onEmptyEnter={find}
              />
              <p id={`${ids}-interests-hint`} className="mt-2 text-sm text-soft">
                {t(full ? "lobby.interestsFull" : "lobby.interestsHint", { max: MAX_INTERESTS })}
              </p>
              {popular.length > 0 && !full && (
                <div className="mt-4">
                  <h3 id={`${ids}-popular`} className="text-sm font-semibold text-soft">
                    {t("lobby.popular")}
                  </h3>
                  <ul aria-labelledby={`${ids}-popular`} className="mt-2 flex flex-wrap gap-2">
                    {popular.map(({ interest, guests }) => (
                      <li key={interest} className="max-w-full">
                        <button
                          type="button"
                          onClick={() => add(interest)}
                          className="inline-flex min-h-10 max-w-full items-center gap-2 rounded-full border border-line bg-paper px-3.5 text-[0.95rem] transition-colors duration-150 hover:border-edge hover:bg-raised lg:bg-surface"
                        >
                          <bdi className="truncate">{interest}</bdi>
                          <span className="sr-only">{tn("lobby.pickedBy", guests)}</span>
                          <span aria-hidden="true" className="text-sm text-soft tabular-nums">
                            {speech.number(guests)}
                          </span>
                        </button>
                      </li>
                    ))}
                  </ul>
                </div>
              )}
            </div>

            <div>
              <h3 id={`${ids}-languages`} className="mb-2 font-semibold">
                {t("lobby.languages")}
              </h3>
              <ul aria-labelledby={`${ids}-languages`} className="flex flex-wrap gap-2">
                {lobby.languages.map((code) => (
                  <li key={code} className="inline-flex max-w-full items-center rounded-lg bg-accent-wash ps-3">
                    <bdi className="truncate">{speech.language(code)}</bdi>
                    <button
                      type="button"
                      aria-label={t("lobby.removeLanguage", { language: speech.language(code) })}
                      className="inline-flex size-9 shrink-0 items-center justify-center rounded-lg text-soft hover:text-ink"
                      onClick={() => {
                        visavis.setLanguages(lobby.languages.filter((other) => other !== code));
                        announce(t("lobby.languageRemoved", { language: speech.language(code) }));
                        addLanguage.current?.focus();
                      }}
                    >
                      <Icon name="close" className="size-4" />
                    </button>
                  </li>
                ))}
                <li>
                  <button
                    ref={addLanguage}
                    type="button"
                    onClick={() => setChoosing(true)}
                    className="inline-flex min-h-9 items-center gap-1.5 rounded-lg border border-edge px-3 text-[0.95rem] transition-colors duration-150 hover:bg-raised"
                  >
                    <Icon name="plus" className="size-4" />
                    {t("lobby.languageAdd")}
                  </button>
                </li>
              </ul>
              <p className="mt-2 text-sm text-soft">
                {lobby.languages.length === 0
                  ? t("lobby.languagesAny")
                  : lobby.languages.length >= MAX_LANGUAGES
                    ? t("lobby.languagesFull", { max: MAX_LANGUAGES })
                    : t("lobby.languagesHint")}
              </p>
            </div>

            <Segmented
              legend={t("lobby.mode")}
              legendClass="mb-2 font-semibold"
              name={`${ids}-mode`}
              value={lobby.mode}
              onChange={(mode) => visavis.setMode(mode)}
              options={MODES.map((mode) => ({
                value: mode,
                disabled: !lobby.modes.includes(mode),
                label: (
                  <>
                    <Icon name={mode} className="size-5 max-sm:hidden" />
                    <span>
                      {t(`lobby.mode.${mode}`)}
                      {!lobby.modes.includes(mode) && <span className="block text-xs font-normal">{t("lobby.soon")}</span>}
                    </span>
                  </>
                ),
              }))}
            />
          </section>
        </form>
      </main>
      <Suspense fallback={null}>
        {part === "devices" && lobby.mode !== "text" && (
          <DeviceDialog
            what={lobby.mode}
            me={profile}
            title={t("devices.findTitle")}
            go={t("lobby.find")}
            keeps={false}
            onGo={async () => {
              await visavis.find();
              setPart(null);
              return null;
            }}
            onClose={() => setPart(null)}
          />
        )}
        {part === "recordings" && <RecordingsDialog onClose={() => setPart(null)} />}
      </Suspense>
      {choosing && <LanguagesDialog onClose={() => setChoosing(false)} />}
    </div>
  );
}
