/** Says of what was kept whether it still has the shape in which it was written: others write to a browser's storage too. */
export type Fits = (value: unknown) => boolean;

export const isText: Fits = (value) => typeof value === "string";
export const isFlag: Fits = (value) => typeof value === "boolean";
/** `Infinity` is not JSON, but `1e999` is. */
export const isNumber: Fits = (value) => Number.isFinite(value);
export const isNothing: Fits = (value) => value === null || value === undefined;
export const isOneOf = (...values: readonly unknown[]): Fits => (value) => values.includes(value);
export const either = (...all: readonly Fits[]): Fits => (value) => all.some((fits) => fits(value));
export const isList = (of: Fits): Fits => (value) => Array.isArray(value) && value.every(of);
export const isRecord =
  (fields: Readonly<Record<string, Fits>> = {}): Fits =>
  (value) =>
    typeof value === "object" &&
    value !== null &&
    Object.entries(fields).every(([name, fits]) => fits((value as Record<string, unknown>)[name]));
