// The network is back: so are we.
addEventListener("online", function () {
  location.replace("/");
});
