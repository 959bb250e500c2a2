import type { ReactNode, RefObject } from "react";
import type { Profile } from "../../contract.gen";
import { Face, type Gaze } from "../../ui/Face";
import { VideoTile } from "../../ui/VideoTile";

interface Props {
  readonly person: Profile;
  readonly gaze: Gaze;
  /** Null while there is nothing to see: then the face is. */
  readonly stream: MediaStream | null;
  readonly label: string;
  readonly testid: string;
  readonly mirrored?: boolean;
  readonly soft?: boolean;
  readonly whole?: boolean;
  readonly speaking: boolean;
  readonly small: boolean;
  readonly videoRef?: RefObject<HTMLVideoElement | null> | undefined;
  readonly children?: ReactNode;
}

/** Somebody in the call: the picture, or the face, and whether they speak. */
export function Tile({ person, gaze, stream, label, testid, mirrored, soft, whole, speaking, small, videoRef, children }: Props) {
  const face = small ? "size-11" : "size-24 sm:size-36 flat:size-20";
  return (
    <div
      data-speaking={speaking}
      className="@container-[size] absolute inset-0 grid place-items-center overflow-clip bg-surface"
      style={{ "--hue": person.hue }}
    >
      <div className="hue-glow absolute inset-0" aria-hidden="true" />
      <span className={`relative rounded-full transition-shadow duration-150 ${speaking && stream === null ? "hue-halo" : ""}`}>
        <Face hue={person.hue} gaze={gaze} className={`block ${face}`} />
      </span>
      {stream !== null && (
        <VideoTile stream={stream} label={label} testid={testid} mirrored={mirrored} soft={soft} whole={whole} videoRef={videoRef} />
      )}
      {stream !== null && speaking && <span aria-hidden="true" className="hue-speaking absolute inset-0 rounded-[inherit]" />}
      {children}
    </div>
  );
}
