import { useEffect, useEffectEvent, useRef, useState } from "react";
import type { ErrorCode, Profile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { DeviceProblem } from "../../model";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { Face } from "../../ui/Face";
import { Icon } from "../../ui/Icon";
import { Switch } from "../../ui/Switch";
import { VideoTile } from "../../ui/VideoTile";
import { useStore } from "../../useStore";
import { problemWords } from "../problem";
import { useVisavis } from "../useVisavis";
import { DevicePicker, Level } from "./Pickers";
import { ProblemNote } from "./ProblemNote";

interface Props {
  readonly what: "voice" | "video";
  readonly me: Profile;
  readonly title: string;
  readonly go: string;
  /** Goes on; what comes back was refused, and is said here. */
  readonly onGo: () => Promise<ErrorCode | "unreachable" | null>;
  readonly onClose: () => void;
  /** A call takes the devices over; otherwise they are let go of. */
  readonly keeps: boolean;
}

/** Whether another device may be the way out. */
const pickable = (problem: DeviceProblem | null) => problem === null || problem === "busy" || problem === "failed";

/** A look in the mirror before anybody else looks: one press from here to searching, calling or answering. */
export function DeviceDialog({ what, me, title, go, onGo, onClose, keeps }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const devices = useStore(visavis.devices);
  const { relay } = useStore(visavis.lobby);
  const [going, setGoing] = useState(false);
  const [refused, setRefused] = useState<ErrorCode | "unreachable" | null>(null);
  const kept = useRef(false as boolean);
  const button = useRef<HTMLButtonElement>(null);
  const video = what === "video";

  const letGo = useEffectEvent(() => {
    if (!kept.current) visavis.closeDevices();
  });
  useEffect(() => {
    void visavis.openDevices(what);
    button.current?.focus({ preventScroll: true });
    return () => letGo();
  }, [visavis, what]);

  async function join() {
    if (going) return;
    setGoing(true);
    setRefused(null);
    // While one waits for a stranger nothing is switched on; a call with somebody begins with what is open here.
    kept.current = keeps;
    if (!keeps) visavis.closeDevices();
    const problem = await onGo();
    setGoing(false);
    if (problem === null) return;
    kept.current = false;
    setRefused(problem);
  }

  const again = () => void visavis.openDevices(what);
  const seen = video && devices.cameraOn && devices.preview !== null;

  return (
    <Dialog title={title} closeLabel={t("app.close")} onClose={onClose} wide={video}>
      <div data-testid="device-check" data-what={what} className="mt-3 flex flex-col gap-4">
        {video && (
          <figure>
            <div
              className="stage relative mx-auto grid aspect-video max-h-[26dvh] sm:max-h-[30dvh] w-full place-items-center overflow-clip rounded-2xl"
              style={{ "--hue": me.hue }}
            >
              <div className="hue-glow absolute inset-0" aria-hidden="true" />
              <Face hue={me.hue} gaze={devices.opening ? "glance" : "ahead"} className="relative size-20" />
              {seen && (
                <VideoTile stream={devices.preview} label={t("call.pictureOfYou")} testid="preview" mirrored />
              )}
            </div>
            <figcaption className="mt-1.5 text-center text-sm text-soft">
              {t(devices.opening ? "devices.opening" : seen ? "devices.preview" : "devices.previewOff")}
            </figcaption>
          </figure>
        )}
        {!video && devices.opening && <p className="text-sm text-soft">{t("devices.opening")}</p>}

        <div className={`grid gap-x-6 gap-y-4 ${video ? "sm:grid-cols-2" : ""}`}>
          {video && (
            <div className="flex flex-col gap-3">
              <Switch
                testid="join-camera"
                label={t("devices.joinCamera")}
                line={t(devices.cameraOn ? "devices.joinCameraLine" : "devices.joinCameraOff")}
                on={devices.cameraOn}
                onChange={(on) => void visavis.setCamera(on)}
              />
              {devices.cameraOn && devices.cameraProblem !== null && (
                <ProblemNote
                  kind="camera"
                  problem={devices.cameraProblem}
                  onAgain={again}
                  onWithout={() => void visavis.setCamera(false)}
                />
              )}
              {devices.cameraOn && pickable(devices.cameraProblem) && <DevicePicker kind="camera" />}
            </div>
          )}
          <div className="flex flex-col gap-3">
            <Switch
              testid="join-microphone"
              label={t("devices.joinMicrophone")}
              line={t(devices.microphoneOn ? "devices.joinMicrophoneLine" : "devices.joinMicrophoneOff")}
              on={devices.microphoneOn}
              onChange={(on) => void visavis.setMicrophone(on)}
            />
            {devices.microphoneOn && devices.microphoneProblem !== null && (
              <ProblemNote
                kind="microphone"
                problem={devices.microphoneProblem}
                onAgain={again}
                onWithout={() => void visavis.setMicrophone(false)}
              />
            )}
            {devices.microphoneOn && pickable(devices.microphoneProblem) && <DevicePicker kind="microphone" />}
          </div>
          {devices.microphoneOn && devices.microphoneProblem === null && (
            <div className={video ? "sm:order-last" : ""}>
              <Level devices={devices} />
              <p className="mt-1.5 text-sm text-soft">{t("devices.levelHint")}</p>
            </div>
          )}
          <DevicePicker kind="speaker" />
        </div>

        <p className={`flex gap-2.5 text-sm ${relay ? "text-soft" : "rounded-2xl bg-accent-wash p-3.5 text-ink"}`}>
          <Icon name={relay ? "shield" : "alert"} className={`mt-px size-5 ${relay ? "" : "text-accent-strong"}`} />
          {t(relay ? "devices.privateLine" : "devices.directLine")}
        </p>
        {refused !== null && (
          <p role="alert" className="flex items-center gap-2 text-sm font-semibold text-accent-strong">
            <Icon name="alert" className="size-4.5" />
            {problemWords(speech, refused)}
          </p>
        )}
        <div className="sticky -bottom-px -mx-6 -mb-6 border-t border-line bg-surface px-6 pt-3 pb-[max(1.25rem,env(safe-area-inset-bottom))] flat:py-2">
          <Button
            ref={button}
            look="main"
            size="large"
            data-testid="device-check-go"
            aria-disabled={going}
            className="w-full flat:min-h-11 flat:rounded-xl"
            onClick={() => void join()}
          >
            {going ? t("app.loading") : go}
          </Button>
        </div>
      </div>
    </Dialog>
  );
}
