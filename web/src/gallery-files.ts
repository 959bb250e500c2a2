/** Files for the gallery: landscapes, a hum, and what somebody might choose to send. */

/** A few pixels of sky, hills and water, as the server makes them of a picture: WebP, base64. */
export const BLUR = "UklGRnAAAABXRUJQVlA4IGQAAAAQBACdASoYABIAPu1kqU2ppaOiMAgBMB2JYwCw7YoA3y1bpQYiSX0yQAD+IVQg4fpZGUzPVPRgSIj2RVXbUsrv+IArP4z2Oa4RzQsDxjPdRyHJCrx5cwO0RAft88yBC3GJ5UAA";

/** An evening by the water, as large as one likes. */
export function painted(width: number, height: number, hue: number): string {
  const at = (share: number) => Math.round(share * height);
  const hills = (base: number, swing: number) =>
    `M0 ${at(base)}C${width * 0.2} ${at(base - swing)} ${width * 0.3} ${at(base + swing / 2)} ${width * 0.5} ${at(base - swing / 3)}S${width * 0.85} ${at(base - swing)} ${width} ${at(base)}V${height}H0Z`;
  const drawing = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<defs><linearGradient id="s" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="hsl(${hue} 55% 38%)"/><stop offset=".55" stop-color="hsl(${hue + 120} 65% 72%)"/><stop offset="1" stop-color="hsl(${hue + 150} 80% 82%)"/></linearGradient></defs>
<rect width="100%" height="100%" fill="url(#s)"/><circle cx="${width * 0.68}" cy="${at(0.46)}" r="${Math.min(width, height) * 0.08}" fill="hsl(45 95% 90%)"/>
<path d="${hills(0.58, 0.16)}" fill="hsl(${hue + 20} 30% 44%)"/><path d="${hills(0.7, 0.1)}" fill="hsl(${hue} 34% 30%)"/><path d="${hills(0.84, 0.05)}" fill="hsl(${hue - 10} 42% 18%)"/></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(drawing)}`;
}

const RATE = 4000;
const hums = new Map<number, string>();

/** A low hum that comes and goes; an address of its own, kept for as long as the page is open. */
export function humming(seconds: number): string {
  if (!("createObjectURL" in URL)) return "";
  const known = hums.get(seconds);
  if (known !== undefined) return known;
  const samples = Math.round(seconds * RATE);
  const wave = new DataView(new ArrayBuffer(44 + samples));
  const words = (at: number, text: string) => Array.from(text).forEach((letter, index) => wave.setUint8(at + index, letter.charCodeAt(0)));
  words(0, "RIFF");
  wave.setUint32(4, 36 + samples, true);
  words(8, "WAVEfmt ");
  wave.setUint32(16, 16, true);
  wave.setUint16(20, 1, true);
  wave.setUint16(22, 1, true);
  wave.setUint32(24, RATE, true);
  wave.setUint32(28, RATE, true);
  wave.setUint16(32, 1, true);
  wave.setUint16(34, 8, true);
  words(36, "data");
  wave.setUint32(40, samples, true);
  for (let at = 0; at < samples; at += 1) wave.setUint8(44 + at, 128 + 24 * Math.sin(at * 0.2) * Math.sin(at * 0.0008));
  const url = URL.createObjectURL(new Blob([wave], { type: "audio/wav" }));
  hums.set(seconds, url);
  return url;
}

/** From words, or from an address with a drawing in it; its size may be pretended. */
export function chosenFile(name: string, type: string, content: string | null = "words", bytes?: number): File {
  const text = content?.startsWith("data:") === true ? decodeURIComponent(content.slice(content.indexOf(",") + 1)) : (content ?? "words");
  const file = new File([text], name, { type });
  if (bytes !== undefined) Object.defineProperty(file, "size", { value: bytes });
  return file;
}
