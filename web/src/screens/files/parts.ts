/** What a conversation needs only once files are chosen, looked at or recorded, as one part that loads apart. */
export { DropArea } from "./DropArea";
export { Lightbox } from "./Lightbox";
export { TrayDialog } from "./TrayDialog";
export { VoiceBar } from "./VoiceBar";
export { VoiceProblem } from "./VoiceProblem";
