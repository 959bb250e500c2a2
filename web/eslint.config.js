import js from "@eslint/js";
import jsxA11y from "eslint-plugin-jsx-a11y";
import reactHooks from "eslint-plugin-react-hooks";
import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

/**
 * contract.gen <- model <- socket <- view-models <- screens <- App; `ui` knows nobody.
 * Each row names what the files of a layer must not import.
 */
const REACT = "^(react|react-dom)(/|$)|^@radix-ui/|/useStore$";
const SCREENS = "^(\\.{1,2}/)+(screens|ui|App|main|i18n)(/|$|\\.)";
const VIEW_MODELS = "^(\\./|(\\.\\./)+)(session|lobby|interest|search|conversation|delivery|settings|call|devices|recordings|files|sharing|uploads|transfer|voice|flow|peer|recorder|adapt|visavis)$";

function layer(files, ...forbidden) {
  return {
    files,
    rules: {
      "no-restricted-imports": [
        "error",
        { patterns: forbidden.map(([regex, message]) => ({ regex, message })) },
      ],
    },
  };
}

export default defineConfig(
  { ignores: ["dist", "src/contract.gen.ts", "public"] },
  js.configs.recommended,
  {
    files: ["**/*.{ts,tsx}"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { project: ["tsconfig.json", "tsconfig.node.json"], tsconfigRootDir: import.meta.dirname } },
    rules: {
      // Nothing here uses `this`; actions are handed around freely.
      "@typescript-eslint/unbound-method": "off",
      // Numbers in templates read well and cannot surprise.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // `() => stop()` is how a one-line callback is written.
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
    },
  },
  {
    files: ["src/**/*.tsx", "src/useStore.ts"],
    plugins: { "react-hooks": reactHooks },
    rules: reactHooks.configs.recommended.rules,
  },
  { files: ["src/**/*.tsx"], ...jsxA11y.flatConfigs.recommended },

  layer(["src/model.ts"], ["^(?!\\./contract\\.gen$)", "model sees the contract only"]),
  layer(
    ["src/{env,id,keep,socket,store}.ts"],
    [REACT, "view-models know no React"],
    [SCREENS, "the connection knows no screens"],
    [VIEW_MODELS, "the connection knows no view-models"],
  ),
  layer(
    ["src/{session,lobby,interest,search,conversation,delivery,settings,call,devices,recordings,files,sharing,uploads,transfer,voice,flow,peer,recorder,adapt,visavis}.ts"],
    [REACT, "view-models know no React"],
    [SCREENS, "view-models know no screens"],
  ),
  layer(
    ["src/screens/**/*.{ts,tsx}"],
    ["/socket$|^socket\\.io", "screens see view-models through model.ts, never the socket"],
    [VIEW_MODELS.replace("\\./|", ""), "screens see view-models through model.ts"],
    ["/(App|main)$", "screens do not know where they are used"],
  ),
  layer(["src/ui/**/*.{ts,tsx}"], ["^\\.\\./", "ui knows nobody: what it shows comes as props"]),
);
