import { type RefObject, useRef } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import { IconButton } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { Menu } from "../../ui/Menu";
import { useMedia } from "../useMedia";

interface Props {
  readonly onFiles: (files: readonly File[]) => void;
}

const LOOK = "m-0.5 size-11 rounded-full";

/** At a desk the system's own chooser; where one touches, first what to choose from. */
export function Attach({ onFiles }: Props) {
  const { t } = useSpeech();
  const touches = useMedia("(hover: none) and (pointer: coarse)");
  const any = useRef<HTMLInputElement>(null);
  const photos = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);

  const input = (ref: RefObject<HTMLInputElement | null>, testid: string, label: string, more: object) => (
    <input
      ref={ref}
      type="file"
      hidden
      data-testid={testid}
      aria-label={label}
      onChange={(event) => {
        onFiles(Array.from(event.target.files ?? []));
        // The same file once more is a change, too.
        event.target.value = "";
      }}
      {...more}
    />
  );

  return (
    <>
      {touches ? (
        <Menu
          label={t("files.attach")}
          trigger={(props) => (
            <IconButton label={t("files.attach")} data-testid="attach" className={LOOK} {...props}>
              <Icon name="attach" className="size-6" />
            </IconButton>
          )}
          entries={[
            { label: t("files.attachCamera"), icon: "camera", testid: "attach-camera", onSelect: () => camera.current?.click() },
            { label: t("files.attachPhotos"), icon: "photo", testid: "attach-photos", onSelect: () => photos.current?.click() },
            { label: t("files.attachFile"), icon: "file", testid: "attach-file", onSelect: () => any.current?.click() },
          ]}
        />
      ) : (
        <IconButton label={t("files.attach")} data-testid="attach" className={LOOK} onClick={() => any.current?.click()}>
          <Icon name="attach" className="size-6" />
        </IconButton>
      )}
      {input(any, "attach-input", t("files.attachFile"), { multiple: true })}
      {touches && input(photos, "attach-input-photos", t("files.attachPhotos"), { multiple: true, accept: "image/*,video/*" })}
      {touches && input(camera, "attach-input-camera", t("files.attachCamera"), { accept: "image/*", capture: "environment" })}
    </>
  );
}
