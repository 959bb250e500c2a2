// Runs before the first paint: a remembered theme must not flash, a right-to-left page must not jump.
(function () {
  var root = document.documentElement;
  var settings = {};
  try {
    settings = JSON.parse(localStorage.getItem("visavis.settings.1") || "{}") || {};
  } catch (_) {
    // Storage is blocked: the system's theme it is.
  }
  if (settings.theme === "light" || settings.theme === "dark") root.dataset.theme = settings.theme;
  var wanted = [settings.locale].concat(navigator.languages || []);
  for (var i = 0; i < wanted.length; i += 1) {
    var language = String(wanted[i] || "").slice(0, 2).toLowerCase();
    if (language === "en" || language === "es" || language === "ar") {
      root.lang = language;
      root.dir = language === "ar" ? "rtl" : "ltr";
      return;
    }
  }
})();
