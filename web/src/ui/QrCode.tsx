import { useMemo } from "react";
import qrcode from "qrcode-generator";

interface Props {
  readonly text: string;
  readonly label: string;
}

/** Dark on light in both themes: many readers do not see it the other way round. */
export default function QrCode({ text, label }: Props) {
  const { path, size } = useMemo(() => {
    const code = qrcode(0, "M");
    code.addData(text);
    code.make();
    const count = code.getModuleCount();
    let squares = "";
    for (let row = 0; row < count; row += 1)
      for (let column = 0; column < count; column += 1)
        if (code.isDark(row, column)) squares += `M${column + 4} ${row + 4}h1v1h-1z`;
    return { path: squares, size: count + 8 };
  }, [text]);

  return (
    <svg role="img" aria-label={label} viewBox={`0 0 ${size} ${size}`} shapeRendering="crispEdges" className="size-52 rounded-2xl">
      <rect width={size} height={size} fill="#fff" />
      <path d={path} fill="#1d1512" />
    </svg>
  );
}
