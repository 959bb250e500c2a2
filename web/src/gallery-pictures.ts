/** Moving pictures for the gallery, painted on the spot: a browser under test has no camera. */

type Kind = "mine" | "theirs" | "blurred" | "screen";

function person(paint: CanvasRenderingContext2D, width: number, height: number, hue: number, at: number): void {
  const room = paint.createLinearGradient(0, 0, width, height);
  room.addColorStop(0, `oklch(0.62 0.05 ${hue + 40})`);
  room.addColorStop(1, `oklch(0.34 0.05 ${hue})`);
  paint.fillStyle = room;
  paint.fillRect(0, 0, width, height);
  paint.fillStyle = `oklch(0.8 0.08 ${hue + 60} / 0.6)`;
  paint.fillRect(width * 0.06, height * 0.1, width * 0.2, height * 0.42);
  paint.fillStyle = `oklch(0.28 0.03 ${hue})`;
  paint.fillRect(width * 0.76, height * 0.22, width * 0.2, height * 0.7);
  const sway = Math.sin(at / 900) * width * 0.008;
  const [x, y, r] = [width * 0.5 + sway, height * 0.44, height * 0.19];
  paint.fillStyle = `oklch(0.42 0.1 ${hue + 180})`;
  paint.beginPath();
  paint.ellipse(x, height * 1.02, height * 0.42, height * 0.4, 0, 0, 7);
  paint.fill();
  paint.fillStyle = "oklch(0.62 0.07 55)";
  paint.fillRect(x - r * 0.4, y + r * 0.6, r * 0.8, r);
  paint.beginPath();
  paint.ellipse(x, y, r * 0.85, r * 1.1, 0, 0, 7);
  paint.fill();
  paint.fillStyle = "oklch(0.3 0.04 50)";
  paint.beginPath();
  paint.ellipse(x, y - r * 0.55, r * 0.95, r * 0.75, 0, Math.PI, 0);
  paint.fill();
  for (const side of [-1, 1]) {
    paint.beginPath();
    paint.ellipse(x + side * r * 0.32, y + r * 0.02, r * 0.07, r * 0.1, 0, 0, 7);
    paint.fill();
  }
  paint.strokeStyle = "oklch(0.42 0.09 30)";
  paint.lineWidth = r * 0.07;
  paint.beginPath();
  paint.arc(x, y + r * 0.32, r * 0.34, 0.35, Math.PI - 0.35);
  paint.stroke();
}

function screen(paint: CanvasRenderingContext2D, width: number, height: number): void {
  paint.fillStyle = "#f4f1ec";
  paint.fillRect(0, 0, width, height);
  paint.fillStyle = "#d9d2c7";
  paint.fillRect(0, 0, width, height * 0.07);
  paint.fillStyle = "#3b332c";
  for (let line = 0; line < 14; line += 1)
    paint.fillRect(width * 0.08, height * (0.14 + line * 0.055), width * (0.3 + ((line * 37) % 50) / 100), height * 0.016);
}

/** Null where there is no canvas to paint on, as in tests without a browser. */
export function picture(kind: Kind): MediaStream | null {
  if (!("captureStream" in HTMLCanvasElement.prototype)) return null;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = kind === "blurred" ? [32, 24] : kind === "screen" ? [1280, 800] : [640, 480];
  const paint = canvas.getContext("2d");
  if (paint === null) return null;
  const draw = () =>
    kind === "screen"
      ? screen(paint, canvas.width, canvas.height)
      : person(paint, canvas.width, canvas.height, kind === "mine" ? 62 : 195, Date.now());
  draw();
  setInterval(draw, 100);
  return canvas.captureStream(10);
}
