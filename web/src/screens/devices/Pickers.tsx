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

const ICONS = { microphone: "voice", camera: "video", speaker: "speaker" } as const;

/** Which microphone, camera or speaker; nothing where there is no choice. */
export function DevicePicker({ kind }: { readonly kind: keyof typeof ICONS }) {
  const speech = useSpeech();
  const visavis = useVisavis();
  const devices = useStore(visavis.devices);
  const list = devices[`${kind}s`];
  if (list.length < 2) return null;
  return (
    <Picker
      label={speech.t(`devices.${kind}`)}
      icon={ICONS[kind]}
      value={devices[kind] ?? list[0]?.id ?? ""}
      options={options(speech, kind, list)}
      onChange={(id) => void visavis.chooseDevice(kind, id)}
    />
  );
}

/** Apart, because it renders many times a second. */
export function Level({ devices }: { readonly devices: DevicesView }) {
  const { t } = useSpeech();
  const level = useStore(useVisavis().level);
  return <LevelMeter level={level} label={t("devices.level")} off={!devices.microphoneOn || devices.microphoneProblem !== null} />;
}
