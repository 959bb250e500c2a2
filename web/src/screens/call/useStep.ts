import { useVisavis } from "../useVisavis";
import type { Step } from "./ladder";

/** Takes a step of the ladder. Whoever adds video means the camera, not a black tile. */
export function useStep(): (step: Step) => void {
  const visavis = useVisavis();
  return (step) => {
    if (step.testid === "add-video" && !visavis.devices.get().cameraOn) void visavis.setCamera(true);
    void visavis.agree({ rung: step.to });
  };
}
