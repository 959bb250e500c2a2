const SHOWS = /[^\s\p{C}\p{Z}\p{M}\u115f\u1160\u2800\u3164\uffa0]/u;

/** Whether anything of it can be seen: blanks, joiners and marks alone make an empty bubble. */
export function isVisible(text: string): boolean {
  return SHOWS.test(text);
}
