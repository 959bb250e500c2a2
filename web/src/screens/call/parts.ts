/** What a conversation needs for a call, as one part that loads apart. */
export { DeviceDialog } from "../devices/DeviceDialog";
export { Ladder } from "./Ladder";
export { Incoming, Outgoing } from "./Ringing";
export { Stage } from "./Stage";
