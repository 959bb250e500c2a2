const MOST_WIDE = 20;
const MOST_HIGH = 24;
const LEAST_WIDE = 11;

/** The place a picture has among the messages, before it is there: in rem, very long ones cut. */
export function frameOf(width: number | null, height: number | null): { readonly ratio: number; readonly rem: number } {
  const ratio = width === null || height === null ? 4 / 3 : Math.max(0.55, Math.min(2.2, width / height));
  return { ratio, rem: Math.round(Math.max(LEAST_WIDE, Math.min(MOST_WIDE, MOST_HIGH * ratio)) * 100) / 100 };
}
