import { useState } from "react";
import type { Speech } from "../../i18n/speak";
import { useSpeech } from "../../i18n/useSpeech";
import type { CallNumbers, CallView } from "../../model";
import { Pop } from "../../ui/Pop";

const BARS = { good: 3, fair: 2, poor: 1 } as const;

function Bars({ quality }: { readonly quality: keyof typeof BARS }) {
  return (
    <svg viewBox="0 0 18 16" aria-hidden="true" className="mirrored h-3.5 w-4" fill="currentColor">
      {[0, 1, 2].map((bar) => (
        <rect key={bar} x={bar * 6.5} y={10 - bar * 5} width="4.5" height={6 + bar * 5} rx="1.5" opacity={bar < BARS[quality] ? 1 : 0.3} />
      ))}
    </svg>
  );
}

function rowsOf({ t, number, tag }: Speech, numbers: CallNumbers, name: string): [string, string][] {
  const unit = (value: number, unit: "millisecond" | "percent" | "kilobit-per-second") =>
    new Intl.NumberFormat(tag, {
      style: "unit",
      unit,
      unitDisplay: "short",
      maximumFractionDigits: unit === "percent" ? 1 : 0,
    }).format(value);
  const picture = ({ width, height, fps }: NonNullable<CallNumbers["sendVideo"]>) =>
    `${number(width)} × ${number(height)}, ${t("call.numbers.perSecond", { n: Math.round(fps) })}`;
  const rows: [string, string | null][] = [
    [t("call.numbers.delay"), numbers.roundTripMs === null ? null : unit(numbers.roundTripMs, "millisecond")],
    [t("call.numbers.loss"), numbers.lossPercent === null ? null : unit(numbers.lossPercent, "percent")],
    [t("call.numbers.jitter"), numbers.jitterMs === null ? null : unit(numbers.jitterMs, "millisecond")],
    [t("call.numbers.send"), numbers.sendKbps === null ? null : unit(numbers.sendKbps, "kilobit-per-second")],
    [t("call.numbers.receive"), numbers.receiveKbps === null ? null : unit(numbers.receiveKbps, "kilobit-per-second")],
    [t("call.numbers.mine"), numbers.sendVideo === null ? null : picture(numbers.sendVideo)],
    [t("call.numbers.theirs", { name }), numbers.receiveVideo === null ? null : picture(numbers.receiveVideo)],
    [t("call.numbers.sound"), numbers.audioCodec],
    [t("call.numbers.video"), numbers.videoCodec],
    [
      t("call.numbers.path"),
      numbers.path === null
        ? null
        : `${t(`call.numbers.${numbers.path}`)}${numbers.transport === null ? "" : ` (${numbers.transport.toUpperCase()})`}`,
    ],
  ];
  return rows.filter((row): row is [string, string] => row[1] !== null);
}

interface Props {
  readonly call: CallView;
  readonly name: string;
}

/** How well it goes, in a word; the numbers for whoever asks. */
export function Quality({ call: { quality, numbers }, name }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const [open, setOpen] = useState(false);
  if (quality === null) return null;
  const rows = numbers === null ? [] : rowsOf(speech, numbers, name);
  const word = t(`call.quality.${quality}`);

  return (
    <Pop
      open={open}
      onOpenChange={setOpen}
      label={t("call.quality.title")}
      side="below"
      trigger={(props) => (
        <button
          type="button"
          data-testid="quality"
          data-quality={quality}
          aria-label={t("call.quality.label", { quality: word })}
          className="on-picture inline-flex min-h-9 items-center gap-2 rounded-full px-3 text-sm font-medium"
          {...props}
        >
          <Bars quality={quality} />
          <span className="max-sm:sr-only">{word}</span>
        </button>
      )}
    >
      {/* In a low window it scrolls, which is for the keyboard too. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <div tabIndex={0} className="w-80 max-w-[85vw] rounded-xl px-3 py-2 focus-visible:-outline-offset-2" data-testid="quality-numbers">
        <p className="font-semibold">{t("call.quality.label", { quality: word })}</p>
        {rows.length === 0 ? (
          <p className="mt-1 text-sm text-soft">{t("call.numbers.none")}</p>
        ) : (
          <table className="mt-1.5 w-full text-sm">
            <tbody>
              {rows.map(([what, value]) => (
                <tr key={what} className="border-t border-line align-top">
                  <th scope="row" className="py-1 pe-3 text-start font-normal text-soft">
                    {what}
                  </th>
                  <td className="py-1 text-end tabular-nums">{value}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </div>
    </Pop>
  );
}
