import { useEffect, useRef, useState } from "react";
import type { Profile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { CallView } from "../../model";
import { AudioOut } from "../../ui/AudioOut";
import { IconButton } from "../../ui/Button";
import { Icon, type IconName } from "../../ui/Icon";
import { useStore } from "../../useStore";
import { useKeys } from "../useKeys";
import { useNow } from "../useNow";
import { useVisavis } from "../useVisavis";
import { Asking } from "./Asking";
import { Controls } from "./Controls";
import { StepButton, Track } from "./Ladder";
import { standing } from "./ladder";
import { Notes } from "./Notes";
import { Quality } from "./Quality";
import { Tile } from "./Tile";
import type { Invitations } from "./useInvitations";

interface Props {
  readonly call: CallView;
  readonly me: Profile;
  readonly partner: Profile;
  readonly invitations: Invitations;
  /** Room for everything, the messages beside it. */
  readonly wide: boolean;
  /** The messages are open over it: it is a strip. */
  readonly strip: boolean;
  readonly unread: number;
  readonly onChat: () => void;
}

const sees = (stream: MediaStream | null) => stream !== null && stream.getVideoTracks().length > 0;

type Which = "screen" | "theirs" | "mine";

interface BadgeProps {
  readonly icon: IconName;
  readonly words: string;
  readonly testid?: string;
  /** Where there is no room for words, they are only heard. */
  readonly brief?: boolean;
}

function Badge({ icon, words, testid, brief = false }: BadgeProps) {
  return (
    <span data-testid={testid} className="inline-flex items-center gap-1.5 whitespace-nowrap" title={words}>
      <Icon name={icon} className="size-4" />
      <span className={brief ? "sr-only" : ""}>{words}</span>
    </span>
  );
}

function Duration({ since }: { readonly since: number }) {
  const { t, elapsed } = useSpeech();
  const time = elapsed(useNow() - since);
  return (
    <span className="on-picture inline-flex min-h-9 items-center rounded-full px-3 text-sm font-medium tabular-nums">
      <span className="sr-only">{t("call.lasts", { time })}</span>
      <span aria-hidden="true">{time}</span>
    </span>
  );
}

export function Stage({ call, me, partner, invitations, wide, strip, unread, onChat }: Props) {
  const { t } = useSpeech();
  const visavis = useVisavis();
  const devices = useStore(visavis.devices);
  const [front, setFront] = useState<Which | null>(null);
  const [asked, setAsked] = useState(0);
  const [heldBack, setHeldBack] = useState(false);
  const stage = useRef<HTMLElement>(null);
  const large = useRef<HTMLVideoElement>(null);
  const { name } = partner;
  const { mine, theirs, phase } = call;
  const running = phase === "live" || phase === "reconnecting";
  const video = call.rung !== "voice" && call.rung !== "text";
  const blurred = call.rung === "blurred";

  // The call takes over: the focus was in a dialog or a card that is gone.
  useEffect(() => {
    if (document.activeElement === null || document.activeElement === document.body)
      stage.current?.focus({ preventScroll: true });
  }, []);

  useKeys((event) => {
    if (event.target instanceof Element && event.target.closest("input, textarea, select") !== null) return;
    const key = event.key.toLowerCase();
    if (key === "m") void visavis.setMicrophone(!visavis.devices.get().microphoneOn);
    else if (key === "v" && mine.rung !== "voice") void visavis.setCamera(!visavis.devices.get().cameraOn);
    else return;
    event.preventDefault();
  });

  const theirCamera = video && theirs.media.camera === true && sees(theirs.stream) ? theirs.stream : null;
  const theirScreen = sees(theirs.screen) ? theirs.screen : null;
  const own = sees(mine.stream) ? mine.stream : devices.preview;
  const myCamera = mine.rung !== "voice" && devices.cameraOn ? own : null;

  const views: Which[] = [...(theirScreen === null ? [] : (["screen"] as const)), "theirs", ...(mine.rung !== "voice" || myCamera !== null ? (["mine"] as const) : [])];
  const main = front !== null && views.includes(front) ? front : (views[0] ?? "theirs");
  const rest = views.filter((view) => view !== main);

  function tile(which: Which, small: boolean) {
    if (which === "mine")
      return (
        <Tile
          person={me}
          gaze="ahead"
          stream={myCamera}
          label={t("call.pictureOfYou")}
          testid="local-video"
          mirrored
          soft={blurred}
          speaking={mine.speaking && devices.microphoneOn}
          small={small}
        />
      );
    const screen = which === "screen";
    return (
      <Tile
        person={partner}
        gaze={running ? "ahead" : "glance"}
        stream={screen ? theirScreen : theirCamera}
        label={t(screen ? "call.screenOf" : "call.pictureOf", { name })}
        testid={screen ? "remote-screen" : "remote-video"}
        soft={!screen && blurred}
        whole={screen}
        speaking={!screen && theirs.speaking && phase === "live"}
        small={small}
        videoRef={small ? undefined : large}
      />
    );
  }

  function playSound() {
    setAsked(asked + 1);
    visavis.playSound();
  }

  const { up, down, waiting } = standing(call);
  const sharing = mine.media.screen === true || mine.screen !== null;

  return (
    <section
      ref={stage}
      aria-label={t("call.title", { name })}
      tabIndex={-1}
      data-testid="call-stage"
      data-phase={phase}
      data-rung={call.rung}
      data-direct={call.direct}
      data-quality={call.quality ?? undefined}
      data-sending={call.sending}
      data-recording={call.recording}
      className={`stage relative flex min-h-0 min-w-0 flex-col overflow-clip lg:rounded-card ${strip ? "h-[30%] min-h-28 shrink-0 flat:h-auto flat:flex-1" : "flex-1"}`}
    >
      {theirs.stream !== null && (
        <AudioOut stream={theirs.stream} speaker={devices.speaker} asked={asked} testid="remote-audio" onHeldBack={setHeldBack} />
      )}
      {theirs.screen !== null && <AudioOut stream={theirs.screen} speaker={devices.speaker} asked={asked} onHeldBack={setHeldBack} />}

      <div className="relative min-h-0 flex-1 overflow-clip">
        {phase === "asking" ? (
          <Asking call={call} me={me} partner={partner} />
        ) : (
          <>
            {tile(main, false)}

            {(phase === "connecting" || phase === "reconnecting") && (
              <div
                data-testid={phase}
                className={`absolute inset-0 grid place-items-center text-center ${phase === "reconnecting" ? "bg-shade" : ""}`}
              >
                <div className={phase === "connecting" ? "pt-44 sm:pt-56 flat:pt-32" : "on-picture rounded-2xl px-6 py-4"}>
                  <p className="flex items-center justify-center gap-2.5 text-lg font-semibold">
                    <span aria-hidden="true" className="size-2.5 animate-dot rounded-full bg-accent" />
                    {t(phase === "connecting" ? "call.connecting" : "call.reconnecting")}
                  </p>
                  {phase === "reconnecting" && <p className="text-sm">{t("call.reconnectingLine")}</p>}
                </div>
              </div>
            )}

            <div className="pointer-events-none absolute inset-x-0 top-0 flex flex-col items-center gap-2 p-3 *:pointer-events-auto">
              <div className="flex w-full items-start gap-2">
                {call.liveSince !== null && !strip && <Duration since={call.liveSince} />}
                {call.recording === "on" && (
                  <span className="inline-flex min-h-9 items-center gap-2 rounded-full bg-stop ps-3 text-sm font-semibold text-on-stop" data-testid="recording-badge">
                    <span aria-hidden="true" className="size-2.5 animate-dot rounded-full bg-current" />
                    {t("record.on")}
                    <button
                      type="button"
                      data-testid="record-stop"
                      aria-label={t("record.stopLabel")}
                      onClick={() => void visavis.agree({ recording: false })}
                      className="min-h-9 rounded-e-full border-s border-current/40 ps-2.5 pe-3.5 hover:bg-stop-strong"
                    >
                      {t("record.stop")}
                    </button>
                  </span>
                )}
                {(call.recording === "starting" || (call.recording === "asked" && mine.recording)) && !strip && (
                  <span className="on-picture inline-flex min-h-9 min-w-0 items-center gap-2 rounded-2xl ps-3 text-sm" data-testid="recording-pending">
                    <span aria-hidden="true" className="size-2.5 shrink-0 animate-dot rounded-full bg-stop" />
                    {t(call.recording === "starting" ? "record.starting" : "record.waiting", { name })}
                    <button
                      type="button"
                      data-testid="record-stop"
                      onClick={() => void visavis.agree({ recording: false })}
                      className="min-h-9 shrink-0 rounded-e-2xl border-s border-line ps-2.5 pe-3.5 font-semibold hover:bg-raised"
                    >
                      {t("app.cancel")}
                    </button>
                  </span>
                )}
                <span className="ms-auto">
                  {!strip && running && <Quality call={call} name={name} />}
                </span>
              </div>
              {!strip && (
                <>
                  {sharing && (
                    <p className="flex flex-wrap items-center justify-center gap-x-3 gap-y-1 rounded-2xl bg-accent py-1 ps-4 pe-1.5 font-semibold text-on-accent shadow-float">
                      <Icon name="screen" />
                      {t("call.sharing")}
                      <button
                        type="button"
                        data-testid="stop-screen"
                        onClick={() => visavis.stopScreen()}
                        className="min-h-9 rounded-xl bg-surface px-3.5 text-sm text-ink hover:bg-raised"
                      >
                        {t("call.shareStop")}
                      </button>
                    </p>
                  )}
                  <Notes call={call} devices={devices} name={name} invitations={invitations} heldBack={heldBack} onPlaySound={playSound} />
                </>
              )}
            </div>

            <div className="pointer-events-none absolute inset-x-0 bottom-0 flex items-end gap-2 p-3">
              <div className="flex min-w-0 flex-1 flex-wrap items-center gap-2">
                <p className="on-picture inline-flex max-w-full flex-wrap items-center gap-x-3 gap-y-0.5 rounded-2xl px-3 py-1.5 text-sm font-medium">
                  <bdi className="truncate">{main === "mine" ? t("chat.you") : main === "screen" ? t("call.screenOf", { name }) : name}</bdi>
                  {running && theirs.media.microphone !== true && (
                    <Badge icon="voiceOff" words={t("call.microphoneOff")} testid="theirs-muted" />
                  )}
                  {running && video && theirs.media.camera !== true && (
                    <Badge icon="videoOff" words={t("call.cameraOff")} testid="theirs-camera-off" />
                  )}
                  {blurred && theirCamera !== null && <Badge icon="eyeOff" words={t("call.blurred")} testid="theirs-blurred" />}
                </p>
              </div>
              {rest.map((which) => (
                <div
                  key={which}
                  className={`pointer-events-auto relative shrink-0 overflow-clip rounded-2xl border border-line shadow-float ${strip ? "h-16 w-20" : wide ? "aspect-video w-44 xl:w-56" : "h-32 w-24 sm:h-40 sm:w-32 flat:h-20 flat:w-28"}`}
                >
                  {tile(which, true)}
                  {!strip && (
                    <>
                      {which === "mine" && (
                        <p className="absolute inset-x-1.5 bottom-1.5 flex flex-wrap gap-1 text-xs font-medium *:rounded-full *:px-2 *:py-0.5">
                          {!devices.cameraOn && (
                            <span className="on-picture">
                              <Badge icon="videoOff" words={t("call.cameraOff")} brief={!wide} />
                            </span>
                          )}
                          {!devices.microphoneOn && (
                            <span className="on-picture">
                              <Badge icon="voiceOff" words={t("call.microphoneOff")} brief />
                            </span>
                          )}
                          {blurred && myCamera !== null && (
                            <span className="on-picture">
                              <Badge icon="eyeOff" words={t("call.blurred")} testid="mine-blurred" />
                            </span>
                          )}
                        </p>
                      )}
                      <button
                        type="button"
                        aria-label={which === "mine" ? t("call.largerYou") : which === "screen" ? t("call.largerScreen") : t("call.larger", { name })}
                        onClick={() => setFront(which)}
                        className="absolute inset-0 rounded-2xl focus-visible:-outline-offset-3"
                      />
                    </>
                  )}
                </div>
              ))}
            </div>
          </>
        )}
      </div>

      {strip ? (
        <div className="absolute end-2 top-2 flex gap-1.5">
          <IconButton
            label={t("call.microphone")}
            aria-pressed={devices.microphoneOn}
            data-testid="toggle-microphone"
            onClick={() => void visavis.setMicrophone(!devices.microphoneOn)}
            className="on-picture size-11 rounded-full"
          >
            <Icon name={devices.microphoneOn ? "voice" : "voiceOff"} />
          </IconButton>
          <button
            type="button"
            aria-label={t("call.hangUp")}
            title={t("call.hangUp")}
            data-testid="hang-up"
            onClick={() => void visavis.endCall()}
            className="inline-flex size-11 items-center justify-center rounded-full bg-stop text-on-stop hover:bg-stop-strong"
          >
            <Icon name="hangUp" />
          </button>
        </div>
      ) : (
        <div className="shrink-0 border-t border-line bg-surface px-3 pt-3 pb-[max(0.75rem,env(safe-area-inset-bottom))] flat:flex flat:items-center flat:justify-center flat:gap-3 flat:py-1.5">
          {!wide && running && (
            <div data-testid="ladder" className="mx-auto mb-3 max-w-md flat:m-0 flat:min-w-0 flat:flex-1 flat:max-w-none">
              <div className="flat:hidden">
                <Track call={call} me={me} partner={partner} />
              </div>
              <div className="mt-2.5 flex flex-wrap items-center justify-center gap-2 empty:hidden flat:mt-0 flat:flex-nowrap flat:justify-start">
                {waiting !== null && <p className="w-full text-center text-sm font-semibold flat:order-last flat:line-clamp-2 flat:w-auto flat:text-start flat:text-xs">{t(waiting, { name })}</p>}
                {up !== null && invitations.rung === null && <StepButton step={up} look="main" compact />}
                {down.map((step) => (
                  <StepButton key={step.testid} step={step} look="quiet" compact />
                ))}
              </div>
            </div>
          )}
          <Controls
            call={call}
            me={me}
            partner={partner}
            invitations={invitations}
            wide={wide}
            unread={unread}
            onChat={onChat}
            swaps={rest.length > 0 && phase !== "asking"}
            onSwap={() => setFront(rest[0] ?? null)}
            stage={stage}
            large={large}
          />
        </div>
      )}
    </section>
  );
}
