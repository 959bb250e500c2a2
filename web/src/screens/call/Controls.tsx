import { type ReactNode, type RefObject, useState } from "react";
import type { Profile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { CallView } from "../../model";
import { Dialog } from "../../ui/Dialog";
import { Icon, type IconName } from "../../ui/Icon";
import { Menu } from "../../ui/Menu";
import { Pop, type TriggerProps } from "../../ui/Pop";
import { useStore } from "../../useStore";
import { DevicePicker, Level } from "../devices/Pickers";
import { useVisavis } from "../useVisavis";
import { Ladder } from "./Ladder";
import { RecordDialog } from "./RecordDialog";
import type { Invitations } from "./useInvitations";

interface RoundProps extends Partial<TriggerProps> {
  readonly label: string;
  readonly icon: IconName;
  readonly testid: string;
  /** A switch, and whether it is on. */
  readonly on?: boolean;
  readonly stop?: boolean;
  readonly shortcut?: string;
  readonly onClick?: () => void;
  readonly children?: ReactNode;
}

/** One round button of the bar. What is off stands out: it is what one forgets. */
function Round({ label, icon, testid, on, stop = false, shortcut, onClick, children, ...rest }: RoundProps) {
  const look = stop
    ? "bg-stop text-on-stop hover:bg-stop-strong"
    : on === false
      ? "bg-ink text-paper hover:opacity-90"
      : "bg-raised text-ink hover:bg-line data-[state=open]:bg-line";
  return (
    <button
      type="button"
      data-testid={testid}
      aria-label={label}
      title={shortcut === undefined ? label : `${label} (${shortcut})`}
      aria-pressed={on}
      aria-keyshortcuts={shortcut}
      onClick={onClick}
      className={`relative inline-flex size-12 shrink-0 items-center justify-center rounded-full transition-colors duration-150 ${stop ? "w-16" : ""} ${look}`}
      {...rest}
    >
      <Icon name={icon} className="size-6" />
      {children}
    </button>
  );
}

function DeviceSettings({ video }: { readonly video: boolean }) {
  const devices = useStore(useVisavis().devices);
  return (
    <div className="flex flex-col gap-3">
      {video && <DevicePicker kind="camera" />}
      <DevicePicker kind="microphone" />
      <DevicePicker kind="speaker" />
      <Level devices={devices} />
    </div>
  );
}

interface Props {
  readonly call: CallView;
  readonly me: Profile;
  readonly partner: Profile;
  readonly invitations: Invitations;
  readonly wide: boolean;
  readonly unread: number;
  readonly onChat: () => void;
  readonly swaps: boolean;
  readonly onSwap: () => void;
  readonly stage: RefObject<HTMLElement | null>;
  readonly large: RefObject<HTMLVideoElement | null>;
}

export function Controls({ call, me, partner, invitations, wide, unread, onChat, swaps, onSwap, stage, large }: Props) {
  const { t, tn, number } = useSpeech();
  const visavis = useVisavis();
  const { microphoneOn, cameraOn } = useStore(visavis.devices);
  const { recording: recordable } = useStore(visavis.lobby);
  const [settings, setSettings] = useState(false);
  const [asking, setAsking] = useState(false);
  const [ladder, setLadder] = useState(false);
  const { name } = partner;
  const running = call.phase === "live" || call.phase === "reconnecting";
  const video = call.mine.rung !== "voice";
  const sharing = call.mine.media.screen === true || call.mine.screen !== null;
  const canPicture = "pictureInPictureEnabled" in document && document.pictureInPictureEnabled;
  const canFull = "fullscreenEnabled" in document && document.fullscreenEnabled;

  const share = () => (sharing ? visavis.stopScreen() : void visavis.shareScreen());
  const picture = () => {
    if (document.pictureInPictureElement !== null) void document.exitPictureInPicture().catch(() => undefined);
    else void large.current?.requestPictureInPicture().catch(() => undefined);
  };
  const full = () => {
    if (document.fullscreenElement !== null) void document.exitFullscreen().catch(() => undefined);
    else void stage.current?.requestFullscreen().catch(() => undefined);
  };
  const record = recordable && running && call.recording === "off";
  const shares = call.canShareScreen && running;
  const extras = [
    ...(shares ? [{ testid: "share-screen", label: t(sharing ? "call.shareStop" : "call.share"), icon: "screen" as const, onSelect: share }] : []),
    ...(record ? [{ testid: "record-ask", label: t("call.record"), icon: "record" as const, onSelect: () => setAsking(true) }] : []),
    ...(swaps ? [{ testid: "swap-views", label: t("call.swap"), icon: "swap" as const, onSelect: onSwap }] : []),
    ...(wide || !running ? [] : [{ testid: "ladder-open", label: t("ladder.title"), icon: "shield" as const, onSelect: () => setLadder(true) }]),
    { testid: "call-settings", label: t("call.settings"), icon: "settings" as const, onSelect: () => setSettings(true) },
    ...(canPicture && call.rung !== "voice" ? [{ testid: "picture-in-picture", label: t("call.picture"), icon: "picture" as const, onSelect: picture }] : []),
    ...(canFull ? [{ testid: "fullscreen", label: t("call.full"), icon: "full" as const, onSelect: full }] : []),
  ];

  return (
    <div role="toolbar" aria-label={t("call.controls")} className="flex items-center justify-center gap-2 sm:gap-2.5">
      <Round
        testid="toggle-microphone"
        label={t("call.microphone")}
        icon={microphoneOn ? "voice" : "voiceOff"}
        on={microphoneOn}
        shortcut="M"
        onClick={() => void visavis.setMicrophone(!microphoneOn)}
      />
      {video && (
        <Round
          testid="toggle-camera"
          label={t("call.camera")}
          icon={cameraOn ? "video" : "videoOff"}
          on={cameraOn}
          shortcut="V"
          onClick={() => void visavis.setCamera(!cameraOn)}
        />
      )}
      {wide ? (
        extras.map(({ testid, label, icon, onSelect }) =>
          testid === "call-settings" ? (
            <Pop
              key={testid}
              open={settings}
              onOpenChange={setSettings}
              label={label}
              trigger={(props) => <Round testid={testid} label={label} icon={icon} {...props} />}
            >
              <div className="w-80 max-w-[80vw] p-2.5">
                <DeviceSettings video={video} />
              </div>
            </Pop>
          ) : (
            <Round key={testid} testid={testid} label={label} icon={icon} onClick={onSelect} />
          ),
        )
      ) : (
        <>
          <Round
            testid="open-chat"
            label={unread > 0 ? tn("call.chatUnread", unread) : t("call.chat")}
            icon="text"
            onClick={onChat}
          >
            {unread > 0 && (
              <span aria-hidden="true" className="absolute -end-1 -top-1 min-w-5.5 rounded-full bg-accent px-1 text-center text-xs leading-5.5 font-bold text-on-accent tabular-nums">
                {number(Math.min(unread, 99))}
              </span>
            )}
          </Round>
          <Menu
            label={t("call.more")}
            trigger={(props) => <Round testid="call-more" label={t("call.more")} icon="more" {...props} />}
            entries={extras}
          />
        </>
      )}
      <Round testid="hang-up" label={t("call.hangUp")} icon="hangUp" stop onClick={() => void visavis.endCall()} />
      {!wide && settings && (
        <Dialog title={t("call.settings")} closeLabel={t("app.close")} onClose={() => setSettings(false)}>
          <div className="mt-3">
            <DeviceSettings video={video} />
          </div>
        </Dialog>
      )}
      {!wide && ladder && (
        <Dialog title={t("ladder.title")} closeLabel={t("app.close")} onClose={() => setLadder(false)}>
          <div className="mt-3">
            <Ladder call={call} me={me} partner={partner} invited={invitations.rung !== null} directInvited={invitations.direct} alone />
          </div>
        </Dialog>
      )}
      {asking && <RecordDialog name={name} onClose={() => setAsking(false)} />}
    </div>
  );
}
