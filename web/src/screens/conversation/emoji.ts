export const QUICK_EMOJI: readonly string[] = ["👍", "❤️", "😂", "😮", "😢", "🙏"];

export const MORE_EMOJI: readonly string[] = (
  "😀 😄 😁 😅 🤣 😊 🙂 😉 😍 🥰 😘 😋 😎 🤓 🤔 🤨 😐 🙄 😬 😴 " +
  "🥳 🤩 😇 🥺 😭 😤 😡 😱 🤯 🤗 🤭 🤫 🫠 😌 😔 😕 🙃 💀 👋 🤝 " +
  "👏 🙌 👌 ✌️ 🤞 💪 👀 🫶 💜 💙 💚 💛 🧡 💔 ✨ 🔥 🎉 ☕ 🍕 🌈 🎵 🐱"
).split(" ");
