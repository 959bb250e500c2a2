import type { ReactNode } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { CallView, DevicesView } from "../../model";
import { Button, IconButton } from "../../ui/Button";
import { Icon, type IconName } from "../../ui/Icon";
import { ProblemNote } from "../devices/ProblemNote";
import { useVisavis } from "../useVisavis";
import { callProblemWords } from "./callProblem";
import { StepButton } from "./Ladder";
import { standing } from "./ladder";
import type { Invitations } from "./useInvitations";

interface NoteProps {
  readonly icon: IconName;
  readonly title: string;
  readonly line?: string;
  readonly children?: ReactNode;
  readonly testid?: string;
  readonly urgent?: boolean;
}

/** A card over the picture: something to answer, or to know. */
function Note({ icon, title, line, children, testid, urgent = false }: NoteProps) {
  return (
    <div
      data-testid={testid}
      role={urgent ? "alert" : undefined}
      className="pointer-events-auto w-full max-w-md animate-arrive rounded-2xl border border-line bg-surface p-3.5 text-ink shadow-float"
    >
      <div className="flex gap-2.5">
        <Icon name={icon} className="mt-0.5 size-5 text-accent-strong" />
        <div className="min-w-0 flex-1">
          <p className="font-semibold [overflow-wrap:anywhere]">{title}</p>
          {line !== undefined && <p className="text-sm text-soft">{line}</p>}
        </div>
      </div>
      {children !== undefined && <div className="mt-2.5 flex flex-wrap justify-end gap-2">{children}</div>}
    </div>
  );
}

interface Props {
  readonly call: CallView;
  readonly devices: DevicesView;
  readonly name: string;
  readonly invitations: Invitations;
  readonly heldBack: boolean;
  readonly onPlaySound: () => void;
}

export function Notes({ call, devices, name, invitations, heldBack, onPlaySound }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const { mine } = call;
  const { up } = standing(call);
  // A blurred picture is small anyway, and a smaller one on a good connection is nobody's worry.
  const limited =
    mine.media.camera === true &&
    ((call.sending === "audio" && call.rung !== "voice") ||
      (call.sending === "reduced" && call.rung === "clear" && call.quality !== "good"));
  const recordingAsked = call.recording === "asked" && call.theirs.recording && !call.mine.recording;

  return (
    <>
      {(call.muffled || heldBack) && (
        <Note icon="speaker" title={t("call.muffled")} urgent>
          <Button look="main" size="small" data-testid="play-sound" onClick={onPlaySound}>
            {t("call.playSound")}
          </Button>
        </Note>
      )}
      {recordingAsked && (
        <Note icon="record" title={t("record.invite", { name })} line={t("record.inviteLine")} testid="recording-invitation">
          <Button size="small" data-testid="record-decline" onClick={() => void visavis.agree({ recording: false })}>
            {t("record.decline")}
          </Button>
          <Button look="main" size="small" data-testid="record-agree" onClick={() => void visavis.agree({ recording: true })}>
            {t("record.agree")}
          </Button>
        </Note>
      )}
      {invitations.rung !== null && up !== null && (
        <Note icon={up.icon} title={t(invitations.rung.title, { name })} line={t(invitations.rung.line)} testid="rung-invitation">
          <Button size="small" onClick={invitations.putOffRung}>
            {t("ladder.notNow")}
          </Button>
          <StepButton step={up} look="main" compact />
        </Note>
      )}
      {invitations.direct && (
        <Note
          icon="direct"
          title={t("direct.invite", { name })}
          line={`${t("direct.line")} ${t("direct.note")}`}
          testid="direct-invitation"
        >
          <Button size="small" onClick={invitations.putOffDirect}>
            {t("ladder.notNow")}
          </Button>
          <Button size="small" data-testid="direct-agree" onClick={() => void visavis.agree({ direct: true })}>
            {t("direct.agree")}
          </Button>
        </Note>
      )}
      {call.problem !== null && (
        <div
          role="alert"
          data-testid="call-problem"
          data-problem={call.problem}
          className="pointer-events-auto flex w-full max-w-md animate-arrive items-center gap-2.5 rounded-2xl border border-line bg-surface ps-3.5 text-sm text-ink shadow-float"
        >
          <Icon name="alert" className="size-5 text-accent-strong" />
          <p className="min-w-0 flex-1 py-2.5">{callProblemWords(speech, call.problem)}</p>
          <IconButton label={t("app.close")} onClick={() => visavis.dismissProblem()}>
            <Icon name="close" />
          </IconButton>
        </div>
      )}
      {(["camera", "microphone"] as const).map((kind) => {
        const problem = devices[`${kind}Problem`];
        const wanted = kind === "camera" ? devices.cameraOn && call.mine.rung !== "voice" : devices.microphoneOn;
        return (
          problem !== null &&
          wanted && (
            <div key={kind} className="pointer-events-auto w-full max-w-md rounded-2xl shadow-float">
              <ProblemNote
                kind={kind}
                problem={problem}
                inCall
                onAgain={() => void (kind === "camera" ? visavis.setCamera(true) : visavis.setMicrophone(true))}
                onWithout={() => void (kind === "camera" ? visavis.setCamera(false) : visavis.setMicrophone(false))}
              />
            </div>
          )
        );
      })}
      {devices.swapped != null && (
        <p role="status" className="on-picture max-w-md rounded-2xl px-3.5 py-2 text-center text-sm" data-testid="device-swapped">
          {t(`devices.swapped.${devices.swapped}`)}
        </p>
      )}
      {limited && (
        <p className="on-picture max-w-md rounded-2xl px-3.5 py-2 text-center text-sm" data-testid="sending-note">
          {t(call.sending === "audio" ? "call.sending.audio" : "call.sending.reduced", { name })}
        </p>
      )}
    </>
  );
}
