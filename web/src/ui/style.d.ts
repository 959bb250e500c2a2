import "react";

declare module "react" {
  interface CSSProperties {
    /** Degrees on the colour circle; see `.hue-*` in the style sheet. */
    "--hue"?: number;
  }
}
