import { createContext, type ReactNode, useCallback, useContext, useState } from "react";

type Announce = (words: string) => void;

const AnnounceContext = createContext<Announce>(() => undefined);

/** Says something to screen readers that the eye sees anyway. */
export function useAnnounce(): Announce {
  return useContext(AnnounceContext);
}

export function Announcer({ children }: { readonly children: ReactNode }) {
  const [said, setSaid] = useState({ words: "", turn: 0 });
  const announce = useCallback((words: string) => setSaid((last) => ({ words, turn: last.turn + 1 })), []);
  return (
    <AnnounceContext value={announce}>
      {children}
      <div role="status" aria-live="polite" className="sr-only" data-testid="announcer">
        {/* A new element each time: the same words twice are still said twice. */}
        <span key={said.turn}>{said.words}</span>
      </div>
    </AnnounceContext>
  );
}
