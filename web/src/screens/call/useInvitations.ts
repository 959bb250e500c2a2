import { useState } from "react";
import type { CallView } from "../../model";
import { type Standing, standing } from "./ladder";

export interface Invitations {
  readonly rung: Standing["invited"];
  readonly direct: boolean;
  readonly putOffRung: () => void;
  readonly putOffDirect: () => void;
}

/** What the partner asks for, as long as it is neither answered nor put off. */
export function useInvitations(call: CallView | null): Invitations {
  const [putOff, setPutOff] = useState({ rung: "", direct: false });
  const invited = call === null ? null : standing(call).invited;
  // Asked anew later, it shows anew.
  if (invited === null && putOff.rung !== "") setPutOff({ ...putOff, rung: "" });
  if (call?.theirs.direct !== true && putOff.direct) setPutOff({ ...putOff, direct: false });
  return {
    rung: invited !== null && putOff.rung !== call?.theirs.rung ? invited : null,
    direct: call !== null && call.theirs.direct && !call.mine.direct && !putOff.direct,
    putOffRung: () => setPutOff({ ...putOff, rung: call?.theirs.rung ?? "" }),
    putOffDirect: () => setPutOff({ ...putOff, direct: true }),
  };
}
