import type { Env } from "./env";

/** An id that nobody else has or guesses: 22 characters of URL-safe base64. */
export function newId(env: Pick<Env, "randomBytes">): string {
  return btoa(String.fromCharCode(...env.randomBytes(16)))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .slice(0, 22);
}
