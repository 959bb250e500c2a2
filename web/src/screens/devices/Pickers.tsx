import type { Speech } from "../../i18n/speak";
import { useSpeech } from "../../i18n/useSpeech";
import type { Device, DevicesView } from "../../model";
import { LevelMeter } from "../../ui/LevelMeter";
import { Picker } from "../../ui/Picker";
import { useStore } from "../../useStore";
import { useVisavis } from "../useVisavis";

function options(speech: Speech, kind: "microphone" | "camera" | "speaker", devices: readonly Device[]) {
  return devices.map(({ id, label }, index) => ({
    value: id,
    label: label === "" ? speech.t("devices.numbered", { device: speech.t(`devices.${kind}`), n: index + 1 }) : label,
  }));
}

/** Which microphone, camera and speaker: each only where there is a choice. */
export function Pickers({ video }: { readonly video: boolean }) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const devices = useStore(visavis.devices);
  const kinds = [
    { kind: "camera", icon: "video", list: devices.cameras, shows: video && devices.cameraOn },
    { kind: "microphone", icon: "voice", list: devices.microphones, shows: devices.microphoneOn },
    { kind: "speaker", icon: "speaker", list: devices.speakers, shows: true },
  ] as const;
  return kinds.map(
    ({ kind, icon, list, shows }) =>
      shows &&
      list.length > 1 && (
        <Picker
          key={kind}
          label={t(`devices.${kind}`)}
          icon={icon}
          value={devices[kind] ?? list[0]?.id ?? ""}
          options={options(speech, kind, list)}
          onChange={(id) => void visavis.chooseDevice(kind, id)}
        />
      ),
  );
}

/** Apart, because it renders many times a second. */
export function Level({ devices }: { readonly devices: DevicesView }) {
  const { t } = useSpeech();
  const level = useStore(useVisavis().level);
  return <LevelMeter level={level} label={t("devices.level")} off={!devices.microphoneOn || devices.microphoneProblem !== null} />;
}
